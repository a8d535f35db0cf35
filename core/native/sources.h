// Counts connections by where they come from: one count for each IPv4 address and each IPv6 /64, the block that one
// subscriber gets (RFC 6177) and within which any address is free to choose. Not for several threads at once.
#pragma once

#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <unordered_map>
#include <vector>

namespace sluice {

struct Source {
  uint64_t bits;  // the IPv4 address, or the first 64 bits of the IPv6 address
  bool six;
  bool operator==(const Source& other) const { return bits == other.bits && six == other.six; }
};

// IPv4 inside IPv6 (::ffff:a.b.c.d) counts as IPv4. False: neither.
inline bool readSource(const sockaddr_storage& address, Source* out) {
  const sockaddr_in* four = reinterpret_cast<const sockaddr_in*>(&address);
  const sockaddr_in6* six = reinterpret_cast<const sockaddr_in6*>(&address);
  *out = Source{0, false};
  if (address.ss_family == AF_INET) {
    memcpy(&out->bits, &four->sin_addr, 4);
  } else if (address.ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)) {
    memcpy(&out->bits, six->sin6_addr.s6_addr + 12, 4);
  } else if (address.ss_family == AF_INET6) {
    out->six = true;
    memcpy(&out->bits, six->sin6_addr.s6_addr, 8);
  } else {
    return false;
  }
  return true;
}

class Sources {
 public:
  // Drawn at random, so that nobody can choose addresses that all fall into one bucket.
  Sources() : places_(16, Hash{randomSeed()}) {}

  // Counts one more connection of this source. Returns its place, to be given to release() once; -1: there are
  // `most` already (0: no limit).
  int64_t hold(const Source& source, int64_t most) {
    auto found = places_.find(source);
    if (found != places_.end()) {
      Entry& entry = entries_[found->second];
      if (most > 0 && entry.count >= most) return -1;
      entry.count++;
      return found->second;
    }
    uint32_t place;
    if (free_.empty()) {
      place = static_cast<uint32_t>(entries_.size());
      entries_.push_back(Entry{source, 1});
    } else {
      place = free_.back();
      free_.pop_back();
      entries_[place] = Entry{source, 1};
    }
    places_[source] = place;
    return place;
  }

  // False: nothing is held there.
  bool release(int64_t place) {
    if (place < 0 || place >= static_cast<int64_t>(entries_.size())) return false;
    Entry& entry = entries_[place];
    if (entry.count == 0) return false;
    if (--entry.count == 0) {
      places_.erase(entry.source);
      free_.push_back(static_cast<uint32_t>(place));
    }
    return true;
  }

 private:
  struct Entry {
    Source source;
    int64_t count;
  };
  // The finaliser of SplitMix64 (Steele, Lea, Flood, 2014).
  struct Hash {
    uint64_t seed;
    size_t operator()(const Source& source) const {
      uint64_t x = source.bits ^ seed ^ (source.six ? 0x9e3779b97f4a7c15u : 0);
      x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
      x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
      return static_cast<size_t>(x ^ (x >> 31));
    }
  };
  static uint64_t randomSeed() {
    uint64_t seed = 0;
    // Without it the counts are still right.
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != static_cast<ssize_t>(sizeof seed)) seed = reinterpret_cast<uintptr_t>(&seed);
    return seed;
  }

  std::unordered_map<Source, uint32_t, Hash> places_;
  std::vector<Entry> entries_;
  std::vector<uint32_t> free_;
};

}  // namespace sluice
