import assert from "node:assert/strict";
import { it } from "node:test";
import { createMetrics, LABEL_VALUES_MAX } from "./metrics.ts";

it("adds up what workers report", async () => {
  const metrics = createMetrics({ process: false });
  for (let round = 0; round < 2; round++) {
    metrics.add({
      sessions: { orders: 2 },
      operations: { orders: { allow: 5, deny: 1 } },
      denied: { "no-drop": 1 },
      masked: { pii: 7 },
      limitHits: { agents: 3 },
      dialErrors: { orders: 1 },
      authFailures: [{ issuer: undefined, code: "SLUICE_CREDENTIAL_INVALID", count: 3 }],
      bytesFromClients: 10,
      bytesToClients: 20,
      decisionHits: 4,
      decisionMisses: 2,
      journalBytes: 100,
    });
  }
  metrics.live({ orders: 9, billing: 1 });
  metrics.live({ orders: 3 });
  metrics.reload("refused");
  metrics.connectionsRefused("address", 3);
  metrics.workerRestarted();
  metrics.locksInForce(2);
  const text = await metrics.text();
  for (const line of [
    'sluice_sessions_live{target="orders"} 3',
    'sluice_sessions_total{target="orders"} 4',
    'sluice_operations_total{target="orders",effect="allow"} 10',
    'sluice_operations_total{target="orders",effect="deny"} 2',
    'sluice_denied_total{rule="no-drop"} 2',
    'sluice_masked_values_total{rule="pii"} 14',
    'sluice_limit_hits_total{limit="agents"} 6',
    'sluice_dial_errors_total{target="orders"} 2',
    'sluice_auth_failures_total{issuer="unknown",code="SLUICE_CREDENTIAL_INVALID"} 6',
    'sluice_bytes_total{direction="from_clients"} 20',
    'sluice_bytes_total{direction="to_clients"} 40',
    "sluice_decision_cache_hits_total 8",
    "sluice_decision_cache_misses_total 4",
    "sluice_journal_bytes_total 200",
    'sluice_reload_total{result="refused"} 1',
    'sluice_reload_total{result="ok"} 0',
    'sluice_connections_refused_total{reason="address"} 3',
    'sluice_connections_refused_total{reason="sessions"} 0',
    "sluice_worker_restarts_total 1",
    "sluice_locks 2",
  ]) {
    assert.ok(text.split("\n").includes(line), `${line} is missing in\n${text}`);
  }
  assert.ok(!text.includes("billing"));
});

it("bounds the values of a label", async () => {
  const metrics = createMetrics({ process: false });
  for (let index = 0; index < LABEL_VALUES_MAX + 10; index++) metrics.add({ denied: { [`rule-${index}`]: 1 } });
  const lines = (await metrics.text()).split("\n").filter((line) => line.startsWith("sluice_denied_total{"));
  assert.equal(lines.length, LABEL_VALUES_MAX + 1);
  assert.ok(lines.includes('sluice_denied_total{rule="other"} 10'));
});

it("survives names that mean something to the format or to JavaScript", async () => {
  const metrics = createMetrics({ process: false });
  metrics.add({ denied: JSON.parse('{"__proto__": 1, "a\\"b\\n": 1}') });
  const text = await metrics.text();
  assert.ok(text.includes('{rule="__proto__"} 1') && text.includes('{rule="a\\"b\\n"} 1'), text);
});
