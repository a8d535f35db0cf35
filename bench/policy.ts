/** Who runs the benchmark: masks apply to analysts; exporters read the same tables without masks, so that their COPY passes untouched. */
export const GROUPS = { masked: "analysts", unmasked: "exporters" } as const;

const RULES = `version: 1
rules:
  - name: analysts-read
    who: { groups: [analysts, exporters] }
    on: { targets: [bench] }
    actions: [read]
    resources: ["public.*"]
    effect: allow
  - name: analysts-keep-history
    who: { groups: [analysts] }
    actions: [sql:insert, sql:update]
    resources: [public.pgbench_history, public.pgbench_tellers]
    effect: allow
  - name: salaries-are-closed
    actions: [read, write]
    resources: [public.salaries]
    effect: deny
    message: Salaries are not for analysts.
  - name: no-credentials
    resources: ["private.*", "*.api_keys", "*.passwords"]
    effect: deny
  - name: no-wide-reads
    actions: [sql:select]
    when: size(operation.tables) > 8
    effect: deny
    message: Join fewer tables.
  - name: no-sleeping
    actions: [sql:select]
    when: operation.functions.exists(name, name == "pg_sleep") && !("corp:dba" in identity.groups)
    effect: deny
  - name: no-schema-changes
    actions: [schema, admin]
    effect: deny
    message: Schema changes go through migrations.
  - name: unfiltered-change
    actions: [sql:update, sql:delete]
    when: operation.unfiltered
    effect: approve
    approve: { count: 1, from: { groups: [dba] } }
  - name: contractors-only-by-day
    who: { groups: [contractors] }
    when: time.hour < 6 || time.hour > 20
    effect: deny
`;

const MASKS = `masks:
  - name: customer-email
    except: { groups: [exporters] }
    columns: [public.customers.email]
    with: redact
  - name: personal-data
    except: { groups: [exporters] }
    detect: [payment_card, us_ssn, email, iban, phone, jwt, private_key, cloud_key]
    with: redact
`;

/**
 * The policy under test: allows, denies that each statement is held against (some by resource, some by expression), approvals,
 * a column mask and all eight content detectors. Nothing in it singles the benchmark's statements out.
 */
export const POLICY = `${RULES}${MASKS}`;
/** The same without masks. */
export const POLICY_WITHOUT_MASKS = RULES;
/** As little as lets the benchmark's clients read: one rule, no expression. */
export const POLICY_BARE = `version: 1
rules:
  - name: everybody-reads
    on: { targets: [bench] }
    actions: [read]
    effect: allow
`;
