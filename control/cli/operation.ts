import type { TargetConfig } from "../../core/config/types.ts";
import { SluiceError } from "../../core/errors.ts";
import type { Operation } from "../../core/policy/types.ts";
import { createClassifier } from "../../protocols/postgres/sql/classify.ts";
import type { RelationName } from "../../protocols/postgres/sql/types.ts";

export interface StatementClassifier {
  /** @throws SluiceError SLUICE_DENIED for what the gateway refuses whatever the policy says */
  classify(sql: string, target: TargetConfig): Promise<Operation>;
  close(): Promise<void>;
}

/**
 * SQL to an operation as the gateway does it, but without the target's catalogue: an unqualified name is taken to be in the
 * first schema of the search path, and views are not looked into.
 */
export async function openStatementClassifier(searchPath: readonly string[]): Promise<StatementClassifier> {
  const classifier = await createClassifier();
  const name = ({ schema, name: relation }: RelationName): string => {
    // pg_catalog is searched before everything else unless the path names it.
    const found = schema ?? (relation.startsWith("pg_") ? "pg_catalog" : (searchPath[0] ?? "public"));
    return `${found}.${relation}`;
  };
  return {
    async classify(sql, target) {
      const bytes = Buffer.from(sql);
      const classified = await classifier.classify(bytes, 0, bytes.length);
      if (classified.refusal !== undefined) throw new SluiceError("SLUICE_DENIED", classified.refusal);
      const accesses = classified.accesses.map(({ action, relations, others }) => ({
        action,
        resources: [...new Set([...others, ...relations.map(name)])],
      }));
      return {
        protocol: target.protocol,
        accesses,
        unfiltered: classified.unfiltered,
        statements: classified.statements,
        tables: [...new Set(classified.accesses.flatMap(({ relations }) => relations.map(name)))],
        columns: classified.columns,
        functions: classified.functions,
      };
    },
    close: () => classifier.close(),
  };
}
