/**
 * Catalogue relations that clients read to find their way (psql's \d family, pg_dump --schema-only, JDBC and ODBC
 * metadata, object-relational mappers). They hold definitions, names and privileges, and nobody's data, so an allow
 * need not name them: who may connect may sql:select them. A deny that names them still denies. Of the statistics only
 * pg_stat_user_tables is here: how many rows and scans a table has, which pg_class tells roughly, and no statement, user or value.
 *
 * Left out on purpose:
 *   credentials      pg_authid pg_shadow pg_user_mapping pg_user_mappings pg_subscription information_schema.user_mapping_options
 *   samples of data  pg_statistic pg_stats pg_statistic_ext_data pg_stats_ext pg_stats_ext_exprs pg_largeobject
 *   others' activity all other pg_stat_* (pg_stat_activity, pg_stat_statements …) pg_statio_* pg_locks pg_prepared_xacts pg_cursors
 *                    pg_prepared_statements pg_replication_* pg_sequences (last values)
 *   server's files   pg_hba_file_rules pg_ident_file_mappings pg_file_settings pg_config pg_db_role_setting
 *
 * Source: PostgreSQL 18, chapters 52 (system catalogs), 53 (system views), 35 (information schema).
 */
const CATALOG = `
  pg_aggregate pg_am pg_amop pg_amproc pg_attrdef pg_attribute pg_auth_members pg_available_extension_versions pg_available_extensions
  pg_cast pg_class pg_collation pg_constraint pg_conversion pg_database pg_default_acl pg_depend pg_description pg_enum pg_event_trigger
  pg_extension pg_foreign_data_wrapper pg_foreign_server pg_foreign_table pg_group pg_index pg_indexes pg_inherits pg_init_privs
  pg_language pg_largeobject_metadata pg_matviews pg_namespace pg_opclass pg_operator pg_opfamily pg_parameter_acl pg_partitioned_table
  pg_policies pg_policy pg_proc pg_publication pg_publication_namespace pg_publication_rel pg_publication_tables pg_range pg_rewrite
  pg_roles pg_rules pg_seclabel pg_seclabels pg_sequence pg_settings pg_shdepend pg_shdescription pg_shseclabel pg_stat_user_tables pg_statistic_ext
  pg_tables pg_tablespace pg_timezone_abbrevs pg_timezone_names pg_transform pg_trigger pg_ts_config pg_ts_config_map pg_ts_dict
  pg_ts_parser pg_ts_template pg_type pg_user pg_views`;

const INFORMATION_SCHEMA = `
  administrable_role_authorizations applicable_roles attributes character_sets check_constraint_routine_usage check_constraints
  collation_character_set_applicability collations column_column_usage column_domain_usage column_options column_privileges
  column_udt_usage columns constraint_column_usage constraint_table_usage data_type_privileges domain_constraints domain_udt_usage
  domains element_types enabled_roles foreign_data_wrappers foreign_servers foreign_tables information_schema_catalog_name
  key_column_usage parameters referential_constraints role_column_grants role_routine_grants role_table_grants role_udt_grants
  role_usage_grants routine_column_usage routine_privileges routine_routine_usage routine_sequence_usage routine_table_usage routines
  schemata sequences sql_features sql_implementation_info sql_parts sql_sizing table_constraints table_privileges tables transforms
  triggered_update_columns triggers udt_privileges usage_privileges user_defined_types view_column_usage view_routine_usage
  view_table_usage views`;

const qualified = (schema: string, names: string): string[] =>
  names
    .trim()
    .split(/\s+/)
    .map((name) => `${schema}.${name}`);

/** `schema.relation` of everything that whoever may connect may sql:select. */
export const INTROSPECTION: ReadonlySet<string> = new Set([
  ...qualified("pg_catalog", CATALOG),
  ...qualified("information_schema", INFORMATION_SCHEMA),
]);

/** The one action that the list opens. */
export const INTROSPECTION_ACTION = "sql:select";
