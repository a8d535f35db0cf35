// CRC-32 as zlib has it, by carry-less multiplication where the processor has that: node's zlib goes by tables, at a fifth of the speed.
#ifndef SLUICE_CRC32_H
#define SLUICE_CRC32_H
#include <stddef.h>
#include <stdint.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

// zlib's, which the node binary exports; nothing here works without it.
extern "C" __attribute__((weak)) unsigned long crc32(unsigned long crc, const unsigned char* bytes, unsigned length);

namespace sluice {

#if defined(__x86_64__)
// Four lanes of 16 bytes are folded over 64 bytes at a time, then into one, then reduced (V. Gopal and others, "Fast CRC Computation for Generic
// Polynomials Using PCLMULQDQ Instruction", Intel 2009; the constants are those for the polynomial 0x04c11db7, bits reflected).
// `length` is at least 64 and a multiple of 16; the register goes in and out as it is, neither end inverted.
__attribute__((target("pclmul,sse4.1"))) inline uint32_t foldCrc32(uint32_t crc, const uint8_t* bytes, size_t length) {
  const __m128i over64 = _mm_set_epi64x(0x01c6e41596, 0x0154442bd4);
  const __m128i over16 = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
  const __m128i over8 = _mm_set_epi64x(0, 0x0163cd6124);
  const __m128i barrett = _mm_set_epi64x(0x01f7011641, 0x01db710641);
  const __m128i lowWords = _mm_set_epi32(0, -1, 0, -1);
  const auto at = [&](size_t offset) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + offset)); };
  __m128i lanes[4] = {_mm_xor_si128(at(0), _mm_cvtsi32_si128(static_cast<int>(crc))), at(16), at(32), at(48)};
  size_t done = 64;
  for (; length - done >= 64; done += 64) {
    for (size_t k = 0; k < 4; k++) {
      const __m128i low = _mm_clmulepi64_si128(lanes[k], over64, 0x00), high = _mm_clmulepi64_si128(lanes[k], over64, 0x11);
      lanes[k] = _mm_xor_si128(_mm_xor_si128(low, high), at(done + 16 * k));
    }
  }
  __m128i rest = lanes[0];
  const auto onto = [&](__m128i next) __attribute__((target("pclmul,sse4.1"))) {
    const __m128i low = _mm_clmulepi64_si128(rest, over16, 0x00), high = _mm_clmulepi64_si128(rest, over16, 0x11);
    rest = _mm_xor_si128(_mm_xor_si128(low, high), next);
  };
  for (size_t k = 1; k < 4; k++) onto(lanes[k]);
  for (; done < length; done += 16) onto(at(done));
  // 128 bits to 96, to 64, to 32.
  rest = _mm_xor_si128(_mm_srli_si128(rest, 8), _mm_clmulepi64_si128(rest, over16, 0x10));
  rest = _mm_xor_si128(_mm_srli_si128(rest, 4), _mm_clmulepi64_si128(_mm_and_si128(rest, lowWords), over8, 0x00));
  __m128i quotient = _mm_and_si128(_mm_clmulepi64_si128(_mm_and_si128(rest, lowWords), barrett, 0x10), lowWords);
  rest = _mm_xor_si128(rest, _mm_clmulepi64_si128(quotient, barrett, 0x00));
  return static_cast<uint32_t>(_mm_extract_epi32(rest, 1));
}
#endif

// crc32(0, bytes, length) of zlib.
inline uint32_t blockCrc32(const uint8_t* bytes, size_t length) {
  uint32_t crc = 0;
#if defined(__x86_64__)
  static const bool folds = __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
  if (folds && length >= 64) {
    const size_t whole = length & ~size_t{15};
    crc = ~foldCrc32(~crc, bytes, whole);
    bytes += whole;
    length -= whole;
  }
#endif
  return static_cast<uint32_t>(crc32(crc, bytes, static_cast<unsigned>(length)));
}

}  // namespace sluice
#endif
