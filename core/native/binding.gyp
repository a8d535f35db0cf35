# Two addons over plain Node-API, so that the first builds where libvectorscan is absent.
# build.ts sets SLUICE_HS_CFLAGS and SLUICE_HS_LIBS; empty libs leave the matcher out.
{
  "variables": { "hs_libs": "<!(printf '%s' \"$SLUICE_HS_LIBS\")" },
  "target_defaults": {
    "cflags": ["-Wall", "-Wextra", "-O2", "-fvisibility=hidden"],
    "cflags_cc": ["-std=c++17", "-fno-exceptions", "-fno-rtti"],
    "cflags!": ["-Wno-unused-parameter"],
    "defines": ["NAPI_VERSION=8"],
  },
  "targets": [
    { "target_name": "sluice_acceptor", "sources": ["acceptor.cc"] },
  ],
  "conditions": [
    ["hs_libs!=''", {
      "targets": [
        {
          "target_name": "sluice_matcher",
          "sources": ["matcher.cc"],
          "cflags": ["<!@(printf '%s' \"$SLUICE_HS_CFLAGS\")"],
          "libraries": ["<!@(printf '%s' \"$SLUICE_HS_LIBS\")"],
        },
      ],
    }],
  ],
}
