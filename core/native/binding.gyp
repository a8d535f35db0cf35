# Three addons over plain Node-API. Built by build.ts.
{
  "target_defaults": {
    "cflags": ["-Wall", "-Wextra", "-O2", "-fvisibility=hidden"],
    "cflags_cc": ["-std=c++17", "-fno-exceptions", "-fno-rtti"],
    "cflags!": ["-Wno-unused-parameter"],
    "defines": ["NAPI_VERSION=8"],
  },
  "targets": [
    { "target_name": "sluice_acceptor", "sources": ["acceptor.cc"] },
    { "target_name": "sluice_matcher", "sources": ["matcher.cc"], "cflags": ["-O3"] },
    { "target_name": "sluice_pump", "sources": ["pump.cc", "pump_secure.cc", "pump_socket.cc", "pump_tls.cc"] },
  ],
}
