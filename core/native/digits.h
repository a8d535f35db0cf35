// Scanners for what pattern engines are slow at: digits in groups, and codes of two letters, two digits and more.
// They look at bytes only and over-approximate; portable C++, a few bytes a nanosecond.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace sluice {

// Byte classes. A separator is tight (space, dash, any byte of a multi-byte character such as a no-break space) or
// loose (parentheses, dot, slash). Up to kGapMax separators may stand between two groups.
enum : uint8_t { kDigit = 1, kTight = 2, kLoose = 4, kLetter = 8 };
constexpr int kGapMax = 3;
constexpr int kGroupsMax = 6;

struct ByteClasses {
  uint8_t of[256];
  constexpr ByteClasses() : of() {
    for (int i = 0x80; i < 0x100; i++) of[i] = kTight;
    for (int i = '0'; i <= '9'; i++) of[i] = kDigit;
    for (int i = 'a'; i <= 'z'; i++) of[i] = of[i - 32] = kLetter;
    of[static_cast<int>(' ')] = of[static_cast<int>('-')] = kTight;
    of[static_cast<int>('(')] = of[static_cast<int>(')')] = of[static_cast<int>('.')] = of[static_cast<int>('/')] = kLoose;
  }
};
inline constexpr ByteClasses kClasses;

inline bool inRun(uint8_t byte) { return (kClasses.of[byte] & (kDigit | kTight | kLoose)) != 0; }

// Groups of digits with separators between: the first group is a suffix of a longer one at will, the last one a prefix
// (bytes before and after the text may look like digits), those between have exactly least..most digits.
struct DigitShape {
  struct Group {
    int least;
    int most;
  };
  Group groups[kGroupsMax];
  int count;   // of groups, 2..kGroupsMax
  int zeros;   // the first group starts with this many zeros (0..2), and after two with another digit
  int digits;  // fewest digits of the run around it
  uint32_t kinds;
};

// Numbers of kNumberDigitsMin..kNumberDigitsMax digits with tight separators, in groups of three and more but the last,
// whose last digit is a Luhn check digit and whose first two digits are admitted for the length.
constexpr int kNumberDigitsMin = 13, kNumberDigitsMax = 19;
struct NumberRules {
  bool admits[kNumberDigitsMax + 1][100] = {};
  uint32_t kinds = 0;  // 0: none
};

// A byte that so many digits must follow within the next `window` bytes, nothing but separators among them.
constexpr int kSignDigitsMin = 4;  // as far as findPlaces() looks
struct Sign {
  uint8_t byte;  // ASCII
  int digits;    // kSignDigitsMin and more
  int window;
  uint32_t kinds;
};

// A byte's low nibble and its high nibble each admit classes; what both admit it is. A byte of a multi-byte character has none here.
enum : uint8_t { kDigitBit = 0x80, kSeparatorBit = 0x40, kZeroBit = 0x20, kLetterRowBit = 0x10, kSignBit = 0x08 };
struct ClassTables {
  alignas(16) uint8_t low[16];
  alignas(16) uint8_t high[16];

  ClassTables() : low(), high() {
    for (int i = 0; i < 16; i++) low[i] = static_cast<uint8_t>(kLetterRowBit | (i <= 9 ? kDigitBit : 0) | (i == 0 ? kZeroBit : 0));
    for (char separator : {' ', '(', ')', '-', '.', '/'}) low[separator & 15] |= kSeparatorBit;
    high[2] = kSeparatorBit;
    high[3] = kDigitBit | kZeroBit;
    for (int i = 4; i < 8; i++) high[i] = kLetterRowBit;
  }
};

struct DigitRules {
  NumberRules numbers;
  std::vector<Sign> signs;
  ClassTables classes;
  std::vector<DigitShape> shapes;
  int least = 0;  // fewest digits of anything above; 0: nothing to look for
  // What a run must contain to be read, see suspects().
  bool afterGap = false;
  bool pairs = false;
  bool zeros = false;

  // False: no run with this shape need contain any of it.
  bool add(const DigitShape& shape) {
    bool allPairs = shape.count >= 5;
    for (int i = 0; i < shape.count; i++) allPairs = allPairs && shape.groups[i].least == 2 && shape.groups[i].most == 2;
    if (shape.zeros == 2) zeros = true;
    else if (allPairs) pairs = true;
    else if (shape.groups[shape.count - 1].least >= 3 && shape.groups[shape.count - 2].least >= 2 && shape.groups[0].least >= 3) afterGap = true;
    else return false;
    if (least == 0 || shape.digits < least) least = shape.digits;
    shapes.push_back(shape);
    return true;
  }

  void add(const Sign& sign) {
    classes.low[sign.byte & 15] |= kSignBit;
    classes.high[sign.byte >> 4] |= kSignBit;
    signs.push_back(sign);
  }
};

// Whether so many digits stand within bytes[at, at + window), if `joined` with nothing but separators among them.
inline bool digitsFollow(const uint8_t* bytes, size_t at, size_t length, int digits, int window, bool joined) {
  int missing = digits;
  for (size_t i = at; missing > 0 && i < length && i < at + static_cast<size_t>(window); i++) {
    if (kClasses.of[bytes[i]] == kDigit) missing--;
    else if (joined && !inRun(bytes[i])) break;
  }
  return missing <= 0;
}

// bytes[at] may be a sign.
template <class Emit>
bool trySign(const uint8_t* bytes, size_t length, size_t at, const DigitRules& rules, Emit emit) {
  for (const Sign& sign : rules.signs) {
    if (bytes[at] != sign.byte) continue;
    if (!emit.spend(static_cast<size_t>(sign.window) / 4)) return false;
    if (digitsFollow(bytes, at + 1, length, sign.digits, sign.window, true) && !emit(at, sign.kinds)) return false;
  }
  return true;
}

// The digits since the last break, and for each number of them the Luhn sum over those before: at every digit, any number
// that ends there can be checked without reading it again.
class NumberReader {
 public:
  void reset() { count_ = 0; }

  // True: a number ends with this digit.
  bool add(uint8_t digit, const NumberRules& rules) {
    const uint8_t value = static_cast<uint8_t>(digit - '0'), twice = static_cast<uint8_t>(value > 4 ? 2 * value - 9 : 2 * value);
    const size_t here = count_ % kRing, next = (count_ + 1) % kRing;
    const size_t parity = count_ % 2;
    values_[here] = value;
    // sums_[p]: digits whose index has parity p count once, the others twice.
    sums_[parity][next] = static_cast<uint8_t>((sums_[parity][here] + value) % 10);
    sums_[1 - parity][next] = static_cast<uint8_t>((sums_[1 - parity][here] + twice) % 10);
    count_++;
    for (size_t length = kNumberDigitsMin; length <= kNumberDigitsMax && length <= count_; length++) {
      const size_t first = (count_ - length) % kRing;
      if (sums_[parity][first] != sums_[parity][next]) continue;
      if (rules.admits[length][values_[first] * 10 + values_[(first + 1) % kRing]]) return true;
    }
    return false;
  }

 private:
  static constexpr size_t kRing = 32;  // a power of two over kNumberDigitsMax
  size_t count_ = 0;
  uint8_t values_[kRing] = {};
  uint8_t sums_[2][kRing] = {};
};

inline bool startsWithZeros(const uint8_t* end, int length, const DigitShape& shape) {
  const DigitShape::Group& first = shape.groups[0];
  for (int take = first.least; take <= first.most && take <= length; take++) {
    const uint8_t* start = end - take;
    if (start[0] != '0') continue;
    if (shape.zeros == 1 || (start[1] == '0' && start[2] != '0')) return true;
  }
  return false;
}

// One run of digits and separators, bytes[start, end). emit(offset, kinds) returns false to stop, and so does emit.spend(units), which
// is told what is read closely.
template <class Emit>
bool readRun(const uint8_t* bytes, size_t start, size_t end, const DigitRules& rules, size_t digitsInRun, Emit emit) {
  struct {
    size_t start;
    int length;
  } groups[kGroupsMax];
  int known = 0;  // groups without a break between them, the latest at [known - 1]
  const bool readsNumbers = rules.numbers.kinds != 0 && digitsInRun >= static_cast<size_t>(kNumberDigitsMin);
  NumberReader number;
  size_t at = start;
  while (at < end) {
    size_t gapStart = at;
    bool loose = false;
    while (at < end && kClasses.of[bytes[at]] != kDigit) loose |= kClasses.of[bytes[at++]] == kLoose;
    if (at == end) break;
    if (at - gapStart > kGapMax) known = 0;
    if (at - gapStart > kGapMax || loose) number.reset();
    size_t groupStart = at;
    for (; at < end && kClasses.of[bytes[at]] == kDigit; at++) {
      if (readsNumbers && number.add(bytes[at], rules.numbers) && !emit(at, rules.numbers.kinds)) return false;
    }
    if (known == kGroupsMax) {
      memmove(&groups[0], &groups[1], sizeof groups[0] * (kGroupsMax - 1));
      known--;
    }
    groups[known].start = groupStart;
    groups[known++].length = static_cast<int>(at - groupStart < 1000000 ? at - groupStart : 1000000);
    for (const DigitShape& shape : rules.shapes) {
      const int wanted = shape.count;
      if (groups[known - 1].length < shape.groups[wanted - 1].least || known < wanted || digitsInRun < static_cast<size_t>(shape.digits)) continue;
      bool fits = groups[known - wanted].length >= shape.groups[0].least;
      for (int i = 1; fits && i < wanted - 1; i++) {
        int length = groups[known - wanted + i].length;
        fits = length >= shape.groups[i].least && length <= shape.groups[i].most;
      }
      if (!fits) continue;
      const auto& first = groups[known - wanted];
      if (shape.zeros > 0 && !startsWithZeros(bytes + first.start + first.length, first.length, shape)) continue;
      if (!emit(groupStart + static_cast<size_t>(shape.groups[wanted - 1].least) - 1, shape.kinds)) return false;
    }
  }
  return true;
}

// Total form of a code by its two letters (either case): the part after two letters and two check digits, a class a
// character. The number that the rest and then these four make, letters as 10..35, leaves 1 when divided by 97.
constexpr int kCodeRestMax = 60;
struct CodeTable {
  struct Form {
    int length;  // 0: no such code
    uint8_t classes[kCodeRestMax];
  };
  std::vector<Form> forms;
  uint8_t formOf[26 * 26] = {};  // index into forms + 1; 0: no such code
  uint32_t kinds = 0;            // 0: none
};

inline int codeValue(uint8_t byte) { return kClasses.of[byte] == kDigit ? byte - '0' : (byte | 0x20) - 'a' + 10; }
inline int appended(int rest, int value) { return (rest * (value < 10 ? 10 : 100) + value) % 97; }

// bytes[at, at + 4) are two letters, or what stands beside them in ASCII, and two digits.
template <class Emit>
bool tryCode(const uint8_t* bytes, size_t length, size_t at, const CodeTable& table, Emit emit) {
  if (kClasses.of[bytes[at]] != kLetter || kClasses.of[bytes[at + 1]] != kLetter) return true;
  const int index = table.formOf[((bytes[at] | 0x20) - 'a') * 26 + (bytes[at + 1] | 0x20) - 'a'];
  if (index == 0) return true;
  const CodeTable::Form& form = table.forms[static_cast<size_t>(index - 1)];
  int read = 0, gap = 0, rest = 0;
  size_t next = at + 4;
  for (; next < length && read < form.length; next++) {
    const uint8_t kind = kClasses.of[bytes[next]];
    if ((kind & (kDigit | kLetter)) != 0) {
      if ((kind & form.classes[read]) == 0) break;
      rest = appended(rest, codeValue(bytes[next]));
      read++;
      gap = 0;
    } else if (kind != kTight || ++gap > kGapMax) {
      break;
    }
  }
  if (!emit.spend(next - at)) return false;
  if (read < form.length) return true;
  for (size_t i = at; i < at + 4; i++) rest = appended(rest, codeValue(bytes[i]));
  return rest != 1 || emit(next - 1, table.kinds);
}

// What lies up to so many bytes before and behind a place matters there. Blocks of 64 bytes overlap by as much, so that each place
// is judged in a block that holds all of it.
constexpr size_t kBack = 3, kAhead = 12, kStride = 64 - kBack - kAhead;
constexpr uint64_t kJudgedFirst = (uint64_t{1} << (64 - kAhead)) - 1, kJudged = kJudgedFirst & ~((uint64_t{1} << kBack) - 1);

// Bits of four blocks.
typedef uint64_t Four __attribute__((vector_size(32), may_alias));
constexpr size_t kBlocks = 32;

// One bit a byte, a word a block. `letter` may hold more of the rows 4x to 7x, `sign` bytes that share their nibbles with signs.
struct BlockBits {
  alignas(32) uint64_t digit[kBlocks], separator[kBlocks], zero[kBlocks], letter[kBlocks], sign[kBlocks];
  // The places to be judged.
  alignas(32) uint64_t judged[kBlocks];
};

// @param words begin at a multiple of four of one of those
inline const Four& four(const uint64_t* words) { return *reinterpret_cast<const Four*>(words); }

inline void classifyPortable(const uint8_t* bytes, const ClassTables& tables, size_t block, BlockBits* bits) {
  uint64_t digit = 0, separator = 0, zero = 0, letter = 0, sign = 0;
  for (int i = 0; i < 64; i++) {
    const uint8_t classes = tables.low[bytes[i] & 15] & tables.high[bytes[i] >> 4];
    digit |= static_cast<uint64_t>((classes & kDigitBit) != 0) << i;
    separator |= static_cast<uint64_t>((classes & kSeparatorBit) != 0 || bytes[i] >= 0x80) << i;
    zero |= static_cast<uint64_t>((classes & kZeroBit) != 0) << i;
    letter |= static_cast<uint64_t>((classes & kLetterRowBit) != 0) << i;
    sign |= static_cast<uint64_t>((classes & kSignBit) != 0) << i;
  }
  bits->digit[block] = digit;
  bits->separator[block] = separator;
  bits->zero[block] = zero;
  bits->letter[block] = letter;
  bits->sign[block] = sign;
}

#if defined(__x86_64__)
// A part of a word, little-endian: x86 has no other.
template <class Part>
void setPart(uint64_t* word, int part, int value) {
  const Part bits = static_cast<Part>(value);
  memcpy(reinterpret_cast<uint8_t*>(word) + static_cast<size_t>(part) * sizeof bits, &bits, sizeof bits);
}

__attribute__((target("avx2"))) inline void classifyAvx2(const uint8_t* bytes, const ClassTables& tables, size_t block, BlockBits* bits) {
  const __m256i low = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(tables.low)));
  const __m256i high = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(tables.high)));
  for (int i = 0; i < 2; i++) {
    const __m256i lanes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + 32 * i));
    // A shuffle gives 0 for an index whose top bit is set, so bytes of multi-byte characters have no class.
    __m256i classes = _mm256_and_si256(_mm256_shuffle_epi8(low, lanes),
                                       _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi16(lanes, 4), _mm256_set1_epi8(15))));
    // From bit to bit, each at the top in its turn.
    setPart<uint32_t>(&bits->digit[block], i, _mm256_movemask_epi8(classes));
    classes = _mm256_add_epi8(classes, classes);
    setPart<uint32_t>(&bits->separator[block], i, _mm256_movemask_epi8(_mm256_or_si256(classes, lanes)));
    classes = _mm256_add_epi8(classes, classes);
    setPart<uint32_t>(&bits->zero[block], i, _mm256_movemask_epi8(classes));
    classes = _mm256_add_epi8(classes, classes);
    setPart<uint32_t>(&bits->letter[block], i, _mm256_movemask_epi8(classes));
    classes = _mm256_add_epi8(classes, classes);
    setPart<uint32_t>(&bits->sign[block], i, _mm256_movemask_epi8(classes));
  }
}

__attribute__((target("ssse3"))) inline void classifySsse3(const uint8_t* bytes, const ClassTables& tables, size_t block, BlockBits* bits) {
  const __m128i low = _mm_load_si128(reinterpret_cast<const __m128i*>(tables.low)), high = _mm_load_si128(reinterpret_cast<const __m128i*>(tables.high));
  for (int i = 0; i < 4; i++) {
    const __m128i lanes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + 16 * i));
    __m128i classes = _mm_and_si128(_mm_shuffle_epi8(low, lanes), _mm_shuffle_epi8(high, _mm_and_si128(_mm_srli_epi16(lanes, 4), _mm_set1_epi8(15))));
    setPart<uint16_t>(&bits->digit[block], i, _mm_movemask_epi8(classes));
    classes = _mm_add_epi8(classes, classes);
    setPart<uint16_t>(&bits->separator[block], i, _mm_movemask_epi8(_mm_or_si128(classes, lanes)));
    classes = _mm_add_epi8(classes, classes);
    setPart<uint16_t>(&bits->zero[block], i, _mm_movemask_epi8(classes));
    classes = _mm_add_epi8(classes, classes);
    setPart<uint16_t>(&bits->letter[block], i, _mm_movemask_epi8(classes));
    classes = _mm_add_epi8(classes, classes);
    setPart<uint16_t>(&bits->sign[block], i, _mm_movemask_epi8(classes));
  }
}
#endif

// The places to look at closely.
struct Places {
  Four runs, codes, signs;
};

// Of four blocks from `block` on. A run is read where it holds what the rules look for; dates, times and prices have none of it:
//  - a separator with three digits after it, and before it two digits and more of a run, or another separator;
//  - eleven digits side by side, with two more or a separator behind them;
//  - four gaps with pairs of digits between and after; - two zeros, a digit, and a gap within three bytes.
// A code begins with two letters and two digits, and a sign has nothing but digits and separators in the kSignDigitsMin bytes behind.
inline void findPlaces(const BlockBits& bits, size_t block, const DigitRules& rules, bool codes, Places* places) {
  const Four d = four(bits.digit + block), s = four(bits.separator + block), judged = four(bits.judged + block);
  const Four row2 = d & d >> 1;  // this digit and the next
  Four runs = {};
  if (rules.afterGap || rules.numbers.kinds != 0) {
    runs |= s & row2 >> 1 & d >> 3 & (s << 1 | (d << 1 & d << 2 & (d << 3 | s << 3)));
  }
  if (rules.numbers.kinds != 0) {
    const Four row4 = row2 & row2 >> 2, row8 = row4 & row4 >> 4;
    runs |= row8 & row4 >> 7 & (s >> 11 | row2 >> 11);
  }
  if (rules.pairs) {
    const Four pair = s & row2 >> 1, two = pair & pair >> 3;
    runs |= two & two >> 6;
  }
  if (rules.zeros) {
    const Four z = four(bits.zero + block), gap = s >> 3 | (d >> 3 & (s >> 4 | (d >> 4 & s >> 5)));
    runs |= z & z >> 1 & d >> 2 & ~(z >> 2) & gap;
  }
  places->runs = runs & judged;
  places->codes = places->signs = Four{};
  if (codes) {
    const Four letter = four(bits.letter + block);
    places->codes = letter & letter >> 1 & row2 >> 2 & judged;
  }
  if (!rules.signs.empty()) {
    const Four run = d | s, run2 = run & run >> 1;
    places->signs = four(bits.sign + block) & run2 >> 1 & run2 >> 3 & judged;
  }
}

// The run around bytes[at], which lies in one. `read`: runs before it were read, moved on.
template <class Emit>
bool readRunAround(const uint8_t* bytes, size_t length, size_t at, const DigitRules& rules, size_t* read, Emit emit) {
  size_t start = at, end = at, digits = 0;
  while (start > *read && inRun(bytes[start - 1])) digits += kClasses.of[bytes[--start]] & kDigit;
  while (end < length && inRun(bytes[end])) digits += kClasses.of[bytes[end++]] & kDigit;
  *read = end;
  if (!emit.spend(end - start)) return false;
  return digits < static_cast<size_t>(rules.least) || readRun(bytes, start, end, rules, digits, emit);
}

// Looks closely at the places of one block.
template <class Emit>
bool readPlaces(const uint8_t* bytes, size_t length, size_t base, const Places& places, size_t lane, const DigitRules& rules, const CodeTable& table,
                size_t* read, Emit emit) {
  for (uint64_t left = places.runs[lane]; left != 0; left &= left - 1) {
    const size_t at = base + static_cast<size_t>(__builtin_ctzll(left));
    if (at >= *read && !readRunAround(bytes, length, at, rules, read, emit)) return false;
  }
  for (uint64_t left = places.codes[lane]; left != 0; left &= left - 1) {
    if (!tryCode(bytes, length, base + static_cast<size_t>(__builtin_ctzll(left)), table, emit)) return false;
  }
  for (uint64_t left = places.signs[lane]; left != 0; left &= left - 1) {
    if (!trySign(bytes, length, base + static_cast<size_t>(__builtin_ctzll(left)), rules, emit)) return false;
  }
  return true;
}

// Classes of many blocks first, then what they mean, four blocks at a time.
// @tparam classify how the bytes of a block are classed
template <class Classify, class Emit>
bool scanBlocks(const uint8_t* bytes, size_t length, const DigitRules& rules, const CodeTable& table, Classify classify, Emit emit) {
  const auto begins = [length](size_t base) { return base == 0 || base + kBack < length; };
  BlockBits bits;
  for (uint64_t& judged : bits.judged) judged = kJudged;
  bits.judged[0] = kJudgedFirst;  // before the first byte there is nothing
  size_t read = 0;
  for (size_t base = 0; begins(base);) {
    const size_t first = base;
    size_t count = 0;
    for (; count < kBlocks && begins(base) && base + 64 <= length; count++, base += kStride) classify(bytes + base, rules.classes, count, &bits);
    for (; count < kBlocks && begins(base); count++, base += kStride) {
      uint8_t padded[64] = {};
      memcpy(padded, bytes + base, length - base);
      classify(padded, rules.classes, count, &bits);
    }
    for (size_t rest = count; rest % 4 != 0; rest++) bits.judged[rest] = 0;
    for (size_t block = 0; block < count; block += 4) {
      Places places;
      findPlaces(bits, block, rules, table.kinds != 0, &places);
      const Four any = places.runs | places.codes | places.signs;
      if ((any[0] | any[1] | any[2] | any[3]) == 0) continue;
      for (size_t lane = 0; lane < 4; lane++) {
        if (any[lane] != 0 && !readPlaces(bytes, length, first + (block + lane) * kStride, places, lane, rules, table, &read, emit)) return false;
      }
    }
    bits.judged[0] = kJudged;
  }
  return true;
}

#if defined(__x86_64__)
template <class Emit>
__attribute__((target("avx2"), flatten)) bool scanBlocksAvx2(const uint8_t* bytes, size_t length, const DigitRules& rules, const CodeTable& table, Emit emit) {
  const auto classify = [](const uint8_t* block, const ClassTables& tables, size_t index, BlockBits* bits)
                            __attribute__((target("avx2"))) { classifyAvx2(block, tables, index, bits); };
  return scanBlocks(bytes, length, rules, table, classify, emit);
}
#endif

// Digit groups, codes and signs in one pass. `lanes` as lanesHere() in literals.h says, or less.
template <class Emit>
bool scanDigits(const uint8_t* bytes, size_t length, const DigitRules& rules, const CodeTable& table, size_t lanes, Emit emit) {
  if (rules.least == 0 && table.kinds == 0 && rules.signs.empty()) return true;
#if defined(__x86_64__)
  if (lanes == 32) return scanBlocksAvx2(bytes, length, rules, table, emit);
  if (lanes == 16) return scanBlocks(bytes, length, rules, table, classifySsse3, emit);
#else
  (void)lanes;
#endif
  return scanBlocks(bytes, length, rules, table, classifyPortable, emit);
}

}  // namespace sluice
