// Matcher: one call scans one byte range for a set of literals (literals.h), digit groups and codes (digits.h) and writes
// where matches end, and the kinds that the caller gave them, into a caller's Uint32Array; no JavaScript runs per match. It knows
// nothing of what it looks for.

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "digits.h"
#include "literals.h"
#include "napi_util.h"

namespace sluice {
namespace {

constexpr size_t kLiteralsMax = 250;
constexpr size_t kLiteralBytesMax = 64;
constexpr napi_type_tag kDatabaseTag = {0x9b1c4f6e2d7a4803, 0xa5e0d3c2b1f64977};

struct Database {
  LiteralSet literals;
  DigitRules digits;
  CodeTable codes;
};

// Offsets in ends[0, count), the kinds of each in kinds[0, count).
struct Hits {
  uint32_t* ends;
  uint32_t* kinds;
  size_t count;
  size_t capacity;
  uint32_t base;
  bool ascending;
  // What may still be read closely: a unit is a byte of a run of digits or of a code, or four bytes behind a literal.
  size_t work;

  bool spend(size_t units) {
    if (units > work) {
      work = 0;
      return false;
    }
    work -= units;
    return true;
  }

  // Several matches that end at one byte come one after the other: kept once, with the kinds of all. False: no room.
  bool add(size_t offset, uint32_t found) {
    uint32_t last = base + static_cast<uint32_t>(offset);
    if (count > 0) {
      uint32_t previous = ends[count - 1];
      if (last == previous) {
        kinds[count - 1] |= found;
        return true;
      }
      if (last < previous) ascending = false;
    }
    if (count == capacity) return false;
    kinds[count] = found;
    ends[count++] = last;
    return true;
  }

  // The scans come one after the other, so what they add has to be merged.
  void order() {
    if (ascending) return;
    std::vector<uint64_t> entries(count);
    for (size_t i = 0; i < count; i++) entries[i] = static_cast<uint64_t>(ends[i]) << 32 | kinds[i];
    std::sort(entries.begin(), entries.end());
    size_t kept = 0;
    for (uint64_t entry : entries) {
      const uint32_t end = static_cast<uint32_t>(entry >> 32), found = static_cast<uint32_t>(entry);
      if (kept > 0 && ends[kept - 1] == end) {
        kinds[kept - 1] |= found;
      } else {
        kinds[kept] = found;
        ends[kept++] = end;
      }
    }
    count = kept;
  }
};

// What the scanners tell: a match, and what they are about to read closely. False: stop.
struct Sink {
  Hits* hits;
  bool operator()(size_t offset, uint32_t kinds) const { return hits->add(offset, kinds); }
  bool spend(size_t units) const { return hits->spend(units); }
};

bool readProperty(napi_env env, napi_value object, const char* name, napi_value* out) {
  return napi_get_named_property(env, object, name, out) == napi_ok;
}

bool readIntProperty(napi_env env, napi_value object, const char* name, int64_t least, int64_t most, int64_t* out) {
  napi_value value;
  return readProperty(env, object, name, &value) && readInt(env, value, least, most, out);
}

bool readList(napi_env env, napi_value value, uint32_t most, uint32_t* length) {
  bool isArray = false;
  return napi_is_array(env, value, &isArray) == napi_ok && isArray && napi_get_array_length(env, value, length) == napi_ok &&
         *length <= most;
}

bool readKinds(napi_env env, napi_value object, uint32_t* kinds) {
  int64_t value;
  if (!readIntProperty(env, object, "kinds", 1, 0x7fffffff, &value)) return false;
  *kinds = static_cast<uint32_t>(value);
  return true;
}

// { groups: [[least, most], …], zeros, digits, kinds }
bool readShape(napi_env env, napi_value value, DigitShape* shape) {
  napi_value groups, pair, number;
  uint32_t count, two;
  int64_t least, most, zeros, digits;
  if (!readProperty(env, value, "groups", &groups) || !readList(env, groups, kGroupsMax, &count) || count < 2) return false;
  for (uint32_t i = 0; i < count; i++) {
    if (napi_get_element(env, groups, i, &pair) != napi_ok || !readList(env, pair, 2, &two) || two != 2) return false;
    if (napi_get_element(env, pair, 0, &number) != napi_ok || !readInt(env, number, 1, 64, &least)) return false;
    if (napi_get_element(env, pair, 1, &number) != napi_ok || !readInt(env, number, least, 64, &most)) return false;
    shape->groups[i] = {static_cast<int>(least), static_cast<int>(most)};
  }
  if (!readIntProperty(env, value, "zeros", 0, 2, &zeros) || !readIntProperty(env, value, "digits", 1, 64, &digits) ||
      !readKinds(env, value, &shape->kinds)) {
    return false;
  }
  shape->count = static_cast<int>(count);
  shape->zeros = static_cast<int>(zeros);
  shape->digits = static_cast<int>(digits);
  return zeros < 2 || shape->groups[0].least >= 3;
}

// [{ length, prefixes: "363839…", kinds }]: the two digits that numbers of a length begin with
bool readNumbers(napi_env env, napi_value set, NumberRules* rules) {
  napi_value numbers, entry, value;
  uint32_t count, kinds;
  int64_t length;
  std::string prefixes;
  if (!readProperty(env, set, "numbers", &numbers) || !readList(env, numbers, kNumberDigitsMax - kNumberDigitsMin + 1, &count)) return false;
  for (uint32_t i = 0; i < count; i++) {
    if (napi_get_element(env, numbers, i, &entry) != napi_ok || !readIntProperty(env, entry, "length", kNumberDigitsMin, kNumberDigitsMax, &length) ||
        !readProperty(env, entry, "prefixes", &value) || !readString(env, value, 200, &prefixes) || prefixes.size() % 2 != 0 ||
        !readKinds(env, entry, &kinds)) {
      return false;
    }
    rules->kinds |= kinds;
    for (size_t at = 0; at < prefixes.size(); at += 2) {
      const uint8_t first = static_cast<uint8_t>(prefixes[at]), second = static_cast<uint8_t>(prefixes[at + 1]);
      if (kClasses.of[first] != kDigit || kClasses.of[second] != kDigit) return false;
      rules->admits[length][(first - '0') * 10 + second - '0'] = true;
    }
  }
  return true;
}

bool readDigits(napi_env env, napi_value set, DigitRules* rules) {
  napi_value shapes, entry;
  uint32_t count;
  if (!readNumbers(env, set, &rules->numbers) || !readProperty(env, set, "shapes", &shapes) || !readList(env, shapes, 64, &count)) return false;
  if (rules->numbers.kinds != 0) rules->least = kNumberDigitsMin;
  for (uint32_t i = 0; i < count; i++) {
    DigitShape shape;
    if (napi_get_element(env, shapes, i, &entry) != napi_ok || !readShape(env, entry, &shape) || !rules->add(shape)) return false;
  }
  return true;
}

// [{ prefix: "DE", rest: "nnnnnnnnnnnnnnnnnn", kinds }]
bool readCodes(napi_env env, napi_value set, CodeTable* table) {
  napi_value codes, entry, prefix, rest;
  uint32_t count, kinds;
  std::string letters, classes;
  if (!readProperty(env, set, "codes", &codes) || !readList(env, codes, 255, &count)) return false;
  for (uint32_t i = 0; i < count; i++) {
    if (napi_get_element(env, codes, i, &entry) != napi_ok || !readProperty(env, entry, "prefix", &prefix) || !readProperty(env, entry, "rest", &rest) ||
        !readString(env, prefix, 2, &letters) || letters.size() != 2 || !readString(env, rest, kCodeRestMax, &classes) || classes.empty() ||
        !readKinds(env, entry, &kinds)) {
      return false;
    }
    for (char letter : letters) {
      if (letter < 'A' || letter > 'Z') return false;
    }
    CodeTable::Form form = {};
    for (char kind : classes) {
      if (kind != 'n' && kind != 'a' && kind != 'c') return false;
      form.classes[form.length++] = kind == 'n' ? kDigit : kind == 'a' ? kLetter : kDigit | kLetter;
    }
    table->forms.push_back(form);
    table->formOf[(letters[0] - 'A') * 26 + letters[1] - 'A'] = static_cast<uint8_t>(table->forms.size());
    table->kinds |= kinds;
  }
  return true;
}

bool readBool(napi_env env, napi_value object, const char* name, bool* out) {
  napi_value value;
  return readProperty(env, object, name, &value) && napi_get_value_bool(env, value, out) == napi_ok;
}

// One byte is a poor thing to search for, but where a number must follow at once the digits tell more.
bool isSign(const Literal& literal) {
  return literal.text.size() == 1 && static_cast<uint8_t>(literal.text[0]) < 0x80 && !literal.caseless && literal.token == 0 && literal.joined &&
         literal.digits >= kSignDigitsMin;
}

// [{ text, caseless, token, digits, window, joined, kinds }]
bool readLiterals(napi_env env, napi_value set, LiteralSet* out, DigitRules* rules) {
  napi_value list, entry, text;
  uint32_t count;
  if (!readProperty(env, set, "literals", &list) || !readList(env, list, kLiteralsMax, &count)) return false;
  std::vector<Literal> literals;
  for (uint32_t i = 0; i < count; i++) {
    Literal literal;
    int64_t token, digits, window;
    if (napi_get_element(env, list, i, &entry) != napi_ok || !readProperty(env, entry, "text", &text) ||
        !readString(env, text, kLiteralBytesMax, &literal.text) || literal.text.empty() ||
        !readBool(env, entry, "caseless", &literal.caseless) || !readBool(env, entry, "joined", &literal.joined) ||
        !readIntProperty(env, entry, "token", 0, 64, &token) || !readIntProperty(env, entry, "digits", 0, 64, &digits) ||
        !readIntProperty(env, entry, "window", 0, 1024, &window) || !readKinds(env, entry, &literal.kinds)) {
      return false;
    }
    literal.token = static_cast<int>(token);
    literal.digits = static_cast<int>(digits);
    literal.window = static_cast<int>(window);
    if (literal.caseless) {
      for (char& letter : literal.text) letter = static_cast<char>(fold(static_cast<uint8_t>(letter)));
    }
    if (isSign(literal)) rules->add(Sign{static_cast<uint8_t>(literal.text[0]), literal.digits, literal.window, literal.kinds});
    else literals.push_back(std::move(literal));
  }
  buildLiterals(std::move(literals), out);
  return true;
}

// compile({ literals, numbers, shapes, codes }) -> database
napi_value Compile(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value set, object;
  std::unique_ptr<Database> database(new Database());
  if (napi_get_cb_info(env, info, &count, &set, nullptr, nullptr) != napi_ok || count < 1 || !readLiterals(env, set, &database->literals, &database->digits) ||
      !readDigits(env, set, &database->digits) || !readCodes(env, set, &database->codes)) {
    return badArgument(env, "compile({ literals: up to 250, numbers, shapes, codes }): see matcher.ts");
  }
  auto release = [](napi_env, void* data, void*) { delete static_cast<Database*>(data); };
  if (napi_create_object(env, &object) != napi_ok || napi_wrap(env, object, database.get(), release, nullptr, nullptr) != napi_ok) {
    return nullptr;
  }
  database.release();  // the object owns it now
  return napi_type_tag_object(env, object, &kDatabaseTag) == napi_ok ? object : nullptr;
}

struct View {
  uint8_t* data;
  size_t length;
};

bool readView(napi_env env, napi_value value, napi_typedarray_type wanted, View* out) {
  napi_typedarray_type type;
  void* data = nullptr;
  bool isTyped = false;
  if (napi_is_typedarray(env, value, &isTyped) != napi_ok || !isTyped) return false;
  if (napi_get_typedarray_info(env, value, &type, &out->length, &data, nullptr, nullptr) != napi_ok || type != wanted) return false;
  out->data = static_cast<uint8_t*>(data);
  return true;
}

// scan(database, bytes, start, end, flags) -> number of matches: their offsets, ascending and distinct, stand in the first half of
// flags, their kinds at the same places of the second half; -1: they do not fit. Where flags has an odd number of words the last one
// bounds what is read closely (Hits::work) and tells what is left of it; -1 when it does not suffice.
napi_value Scan(napi_env env, napi_callback_info info) {
  size_t count = 5;
  napi_value arguments[5];
  bool tagged = false;
  void* wrapped = nullptr;
  if (napi_get_cb_info(env, info, &count, arguments, nullptr, nullptr) != napi_ok || count < 5 ||
      napi_check_object_type_tag(env, arguments[0], &kDatabaseTag, &tagged) != napi_ok || !tagged ||
      napi_unwrap(env, arguments[0], &wrapped) != napi_ok) {
    return badArgument(env, "scan(database, bytes, start, end, flags): not a database");
  }
  View bytes, flags;
  int64_t start, end;
  if (!readView(env, arguments[1], napi_uint8_array, &bytes) || !readView(env, arguments[4], napi_uint32_array, &flags) ||
      bytes.length > INT32_MAX || !readInt(env, arguments[2], 0, static_cast<int64_t>(bytes.length), &start) ||
      !readInt(env, arguments[3], start, static_cast<int64_t>(bytes.length), &end)) {
    return badArgument(env, "scan(database, bytes: Uint8Array, 0 <= start <= end <= length, flags: Uint32Array)");
  }
  if (start == end) return number(env, 0);
  uint32_t* ends = reinterpret_cast<uint32_t*>(flags.data);
  const size_t capacity = flags.length / 2;
  uint32_t* work = flags.length % 2 == 1 ? &ends[flags.length - 1] : nullptr;
  Hits hits = {ends, ends + capacity, 0, capacity, static_cast<uint32_t>(start), true, work == nullptr ? SIZE_MAX : *work};
  const Database& database = *static_cast<Database*>(wrapped);
  const uint8_t* first = bytes.data + start;
  const size_t length = static_cast<size_t>(end - start);
  static const size_t lanes = lanesHere();  // a fact of the processor, the same in every environment
  const Sink sink = {&hits};
  const bool whole =
      scanLiterals(first, length, database.literals, lanes, sink) && scanDigits(first, length, database.digits, database.codes, lanes, sink);
  if (work != nullptr) *work = static_cast<uint32_t>(hits.work);
  if (!whole) return number(env, -1);
  hits.order();
  return number(env, static_cast<int64_t>(hits.count));
}

napi_value Init(napi_env env, napi_value exports) {
  bool done = addFunction(env, exports, "compile", Compile) && addFunction(env, exports, "scan", Scan);
  return done ? exports : fail(env, "ERR_INIT", "the matcher addon could not be initialised");
}

}  // namespace
}  // namespace sluice

NAPI_MODULE_INIT() { return sluice::Init(env, exports); }
