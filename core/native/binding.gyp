# Four addons over plain Node-API, and what the dynamic linker loads into the gateway. Built by build.ts, which sets `sanitizer` for the builds that only tests use.
{
  "variables": { "sanitizer%": "" },
  "target_defaults": {
    "cflags": ["-Wall", "-Wextra", "-O2", "-fvisibility=hidden"],
    "cflags_cc": ["-std=c++17", "-fno-exceptions", "-fno-rtti"],
    "cflags!": ["-Wno-unused-parameter"],
    "defines": ["NAPI_VERSION=8"],
    "conditions": [
      ["sanitizer!=''", {
        # The first fault ends the process. vptr needs run-time type information, which there is none of.
        "cflags": ["-g", "-fno-omit-frame-pointer", "-fsanitize=<(sanitizer)", "-fno-sanitize-recover=all", "-fno-sanitize=vptr"],
        "ldflags": ["-fsanitize=<(sanitizer)"],
      }],
    ],
  },
  "targets": [
    { "target_name": "sluice_acceptor", "sources": ["acceptor.cc"] },
    { "target_name": "sluice_matcher", "sources": ["matcher.cc"], "cflags": ["-O3"] },
    # It sets a signal handler, which has to stay where it is when the thread that loaded it ends.
    { "target_name": "sluice_journal", "sources": ["journal.cc"], "ldflags": ["-Wl,-z,nodelete"] },
    { "target_name": "sluice_pump", "sources": ["pump.cc", "pump_batch.cc", "pump_secure.cc", "pump_socket.cc", "pump_tls.cc", "pump_turn.cc"] },
  ],
  "conditions": [
    ["sanitizer!=''", { "targets": [{ "target_name": "sluice_faults", "sources": ["faults.cc"] }] }, {
      "targets": [{ "target_name": "sluice_heap", "sources": ["heap.cc"], "libraries": ["-ldl", "-lpthread"] }],
    }],
  ],
}
