/**
 * Functions that are looked at by name. A function is meant by its last name, whatever schema stands before it: a
 * function of the same name elsewhere is treated alike, because where an unqualified name leads is the server's to say.
 */

export type Rule = { readonly refuse: string } | { readonly action: string };

const RUNS_SQL = { refuse: "runs SQL that it is given as text, which cannot be checked" };
const FILES = { refuse: "reads or writes files of the database server" };
const LARGE_OBJECTS = { refuse: "reads or writes large objects, which have no name that a policy could check" };
const RAW_PAGES = { refuse: "reads stored pages or the write-ahead log past every permission and mask" };
const ADMIN = { action: "sql:other" };

const RULES = new Map<string, Rule>();
const PREFIXES: [prefix: string, rule: Rule][] = [];

function list(rule: Rule, names: string): void {
  for (const name of names.split(/\s+/)) {
    if (name.endsWith("*")) PREFIXES.push([name.slice(0, -1), rule]);
    else if (name !== "") RULES.set(name, rule);
  }
}

// PostgreSQL 18, sections 9.15 (XML), 12.4 (text search); contrib: dblink, tablefunc, xml2; well-known extensions.
list(
  RUNS_SQL,
  `query_to_xml query_to_xmlschema query_to_xml_and_xmlschema cursor_to_xml cursor_to_xmlschema
   table_to_xml table_to_xmlschema table_to_xml_and_xmlschema schema_to_xml schema_to_xmlschema schema_to_xml_and_xmlschema
   database_to_xml database_to_xmlschema database_to_xml_and_xmlschema
   ts_stat dblink* crosstab* connectby xpath_table
   schedule_in_database alter_job pg_background_launch run_command_on_* master_run_on_worker
   query_export_to_s3 table_import_from_s3 plpgsql_check_function plpgsql_check_function_tb pg_execute_server_program`,
);
// Section 9.28.9, contrib adminpack and file_fdw's helpers.
list(FILES, "pg_read_* pg_ls_* pg_stat_file pg_file_* pg_logdir_ls pg_hba_file_rules pg_ident_file_mappings pg_show_all_file_settings");
// Chapter 33.
list(
  LARGE_OBJECTS,
  `lo_import lo_export lo_creat lo_create lo_open lo_close lo_read lo_write loread lowrite lo_lseek lo_lseek64 lo_tell lo_tell64
   lo_truncate lo_truncate64 lo_unlink lo_get lo_put lo_from_bytea lo_manage`,
);
list(
  RAW_PAGES,
  `get_raw_page heap_page_* bt_page_* brin_page_* gin_page_* gin_metapage_* gin_leafpage_* gist_page_* hash_page_* tuple_data_split pg_get_wal_*
   pg_logical_slot_get_* pg_logical_slot_peek_*`,
);
// Sections 9.28.2, 9.28.3, 9.28.6, 27.2.
list(
  ADMIN,
  `pg_terminate_backend pg_cancel_backend pg_reload_conf pg_rotate_logfile pg_log_backend_memory_contexts pg_logical_* pg_replication_*
   pg_create_physical_replication_slot pg_create_logical_replication_slot pg_copy_physical_replication_slot
   pg_copy_logical_replication_slot pg_drop_replication_slot pg_sync_replication_slots pg_switch_wal pg_create_restore_point
   pg_backup_start pg_backup_stop pg_promote pg_wal_replay_pause pg_wal_replay_resume pg_stat_reset* pg_import_system_collations
   pg_export_snapshot pg_extension_config_dump pg_restore_* pg_clear_* binary_upgrade_* brin_summarize_new_values brin_summarize_range
   brin_desummarize_range gin_clean_pending_list pg_partition_tree_set pg_nextoid pg_stop_making_pinned_objects`,
);
// What stands behind views of others' activity and the server's state: text of statements, addresses, locks (27.2, 53).
list(
  ADMIN,
  `pg_stat_get_activity pg_stat_get_backend_* pg_stat_get_progress_info pg_stat_get_wal_* pg_stat_get_replication_slot* pg_stat_get_subscription*
   pg_stat_statements* pg_stat_monitor* pg_lock_status pg_prepared_xact pg_get_replication_slots pg_show_replication_origin_status
   pg_current_logfile pg_get_multixact_members pg_config`,
);
list({ action: "sql:notify" }, "pg_notify");

/** Why a function may not be called, or under which action it goes besides the statement's own; undefined for all others. */
export function functionRule(name: string, argumentCount: number): Rule | undefined {
  const rule = RULES.get(name);
  if (rule !== undefined) return rule;
  // ts_rewrite(query, text) runs its second argument; ts_rewrite(query, target, substitute) does not.
  if (name === "ts_rewrite" && argumentCount < 3) return RUNS_SQL;
  for (const [prefix, prefixRule] of PREFIXES) if (name.startsWith(prefix)) return prefixRule;
  return undefined;
}

/** `cron.schedule` takes a command; the bare name is too common to refuse in every schema. */
export function qualifiedRule(schema: string | undefined, name: string): Rule | undefined {
  if (schema === "cron" && name.startsWith("schedule")) return RUNS_SQL;
  if (schema === "aws_lambda" || schema === "aws_s3") return RUNS_SQL;
  return undefined;
}

/** Sequence functions that change what they read. */
export const CHANGES_SEQUENCE: ReadonlySet<string> = new Set(["nextval", "setval"]);
