import { type Destination, psql } from "../test/helpers/clients.ts";
import type { Gateway } from "../test/helpers/gateway.ts";
import type { Features } from "./gateway-mode.ts";

/**
 * Show that what a mode's figures claim to include is at work, and what they claim to be without is not, before anything is measured.
 * @throws Error naming what is not so
 */
export async function proveGateway(gateway: Gateway, to: Destination, unmasked: Destination, features: Features): Promise<void> {
  const answer = async (destination: Destination, sql: string): Promise<string> => {
    const result = await psql(destination, `\\set VERBOSITY verbose\n${sql};\n`);
    return result.stdout + result.stderr;
  };
  const expect = (what: string, text: string, holds: boolean): void => {
    if (!holds) throw new Error(`the gateway is up, but not as its figures claim: ${what}; it answered: ${text.slice(0, 500).trim()}`);
  };
  const forged = await answer({ ...to, password: `${to.password.slice(0, -6)}AAAAAA` }, "select 7");
  expect("a forged token gets in", forged, !/^7$/m.test(forged));
  const denied = await answer(to, "select * from salaries");
  const refused = denied.includes("42501") && denied.includes("salaries-are-closed");
  expect(features.rules ? "the deny rule does not refuse" : "it refuses what its only rule allows", denied, refused === features.rules);
  const column = await answer(to, "select 'e-mail ' || email from customers where id = 1");
  const content = await answer(to, "select note from bulk where id = 100");
  if (features.masks) {
    const direct = await answer(to, "select email from customers where id = 1");
    expect("the column mask does not mask", direct, direct.trim() !== "" && !direct.includes("ERROR") && !direct.includes("@example.com"));
    expect("the content detectors do not mask", content, content.includes("write to ") && !content.includes("@example.com"));
  } else {
    expect("it masks a column", column, column.includes("e-mail user1@example.com"));
    expect("it masks content", content, content.includes("user100@example.com"));
  }
  const plain = await answer(unmasked, "select note from bulk where id = 100");
  expect("the unmasked identity is masked", plain, plain.includes("user100@example.com"));
  const audit = await gateway.cli(["audit", "tail", "--format", "json"], { timeoutMillis: 60_000 });
  const recorded = audit.stdout
    .split("\n")
    .some(
      (line) => line.includes('"operation"') && (!features.rules || (line.includes("salaries-are-closed") && line.includes('"denied"'))),
    );
  expect("the statement is not in the audit trail", audit.stdout + audit.stderr, recorded);
}
