/**
 * Every method of DatabaseMetaData that gives a result set, and every one without arguments, called on pgjdbc; then what a connection,
 * statements and results tell about themselves. One line a row, sorted.
 */
export const METADATA = `
import java.lang.reflect.*; import java.sql.*; import java.util.*;
public class Metadata {
  static final String[] KINDS = {"TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE", "PARTITIONED TABLE", "SEQUENCE", "INDEX", "PARTITIONED INDEX", "TYPE", "SYSTEM TABLE", "SYSTEM VIEW", "TEMPORARY TABLE"};
  static Map<String, Object[][]> calls = new TreeMap<>();
  static void call(String name, Object[]... arguments) { calls.put(name, arguments); }
  static Object[] with(Object... values) { return values; }
  static String database;
  static void line(String text) { System.out.println(text.replace("\\n", "\\\\n")); }
  static void failed(String what, Throwable error) {
    while (error instanceof InvocationTargetException) error = error.getCause();
    String said = String.valueOf(error.getMessage()).split("\\n")[0];
    line((said.contains("Sluice") ? "REFUSED " : "FAILED ") + what + ": " + error.getClass().getSimpleName() + " " + said);
  }
  static void rows(String what, ResultSet r) throws Exception {
    ResultSetMetaData m = r.getMetaData(); List<String> rows = new ArrayList<>(); StringBuilder head = new StringBuilder();
    for (int i = 1; i <= m.getColumnCount(); i++) head.append(m.getColumnLabel(i)).append(' ').append(m.getColumnTypeName(i)).append('|');
    while (r.next()) { StringBuilder b = new StringBuilder(); for (int i = 1; i <= m.getColumnCount(); i++) { String v = r.getString(i); b.append(v != null && (v.equals(database) || v.equals("postgres")) && m.getColumnLabel(i).matches("(?i).*CAT(ALOG)?") ? "(database)" : v).append('|'); } rows.add(b.toString()); }
    r.close(); Collections.sort(rows); line(what + " " + rows.size() + " " + head); for (String row : rows) line("  " + row);
  }
  public static void main(String[] a) throws Exception {
    call("getTables", with(null, null, "%", null), with(null, "public", "%", KINDS), with(null, "p%", "c_st%", new String[] {"TABLE"}), with("", "pg\\\\_catalog", "pg_c%", null));
    call("getColumns", with(null, null, "%", "%"), with(null, "public", "customers", "e%"), with(null, "hr", "%", null));
    for (String keys : new String[] {"getPrimaryKeys", "getImportedKeys", "getExportedKeys"}) call(keys, with(null, null, "customers"), with(null, "public", "regions"), with(null, "public", "line"), with(null, "hr", "people"), with(null, null, null));
    call("getCrossReference", with(null, "public", "regions", null, null, "orders"), with(null, null, "line", null, null, "lines_of_orders"), with(null, null, null, null, null, null));
    call("getIndexInfo", with(null, null, "customers", false, false), with(null, "public", "orders", true, true), with(null, "public", "documents", false, true), with(null, "pg_catalog", "pg_class", false, false));
    call("getProcedures", with(null, null, null), with(null, "public", "t%"));
    call("getProcedureColumns", with(null, "public", "%", "%"), with(null, "pg_catalog", "int4%", "%"));
    call("getFunctions", with(null, null, null), with(null, "public", "a%"));
    call("getFunctionColumns", with(null, "public", "%", "%"), with(null, "pg_catalog", "generate%", "%"));
    call("getUDTs", with(null, null, null, null), with(null, "public", "%", new int[] {Types.STRUCT, Types.DISTINCT}));
    call("getSchemas", with(), with(null, "p%"));
    call("getTablePrivileges", with(null, null, "%"), with(null, "public", "customers"));
    call("getColumnPrivileges", with(null, "public", "customers", "%"), with(null, null, "regions", "n%"));
    call("getBestRowIdentifier", with(null, "public", "customers", DatabaseMetaData.bestRowSession, true), with(null, null, "line", DatabaseMetaData.bestRowTemporary, false));
    call("getVersionColumns", with(null, "public", "customers"));
    call("getAttributes", with(null, null, null, null)); call("getSuperTypes", with(null, null, null)); call("getSuperTables", with(null, null, "%")); call("getPseudoColumns", with(null, null, "%", "%"));
    try (Connection c = DriverManager.getConnection(a[0], a[1], a[2])) {
      DatabaseMetaData data = c.getMetaData(); database = c.getCatalog(); int asked = 0;
      Method[] methods = DatabaseMetaData.class.getMethods(); Arrays.sort(methods, Comparator.comparing(Method::toString));
      for (Method method : methods) {
        boolean none = method.getParameterCount() == 0; String name = method.getName();
        if (method.getReturnType() == ResultSet.class) {
          Object[][] arguments = calls.get(name); if (arguments == null && none) arguments = new Object[][] {{}};
          if (arguments == null) { line("FAILED " + name + ": nobody says with what to call it"); continue; }
          for (Object[] values : arguments) {
            if (values.length != method.getParameterCount()) continue;
            String what = name + Arrays.deepToString(values); asked++;
            try { rows(what, (ResultSet) method.invoke(data, values)); }
            catch (InvocationTargetException e) { if (e.getCause() instanceof SQLFeatureNotSupportedException) line(what + " is not implemented"); else failed(what, e); }
          }
        } else if (none && !name.equals("getURL") && !name.equals("getConnection")) {
          asked++; try { line(name + " " + method.invoke(data)); } catch (InvocationTargetException e) { if (e.getCause() instanceof SQLFeatureNotSupportedException) line(name + " is not implemented"); else failed(name, e); }
        }
      }
      line("asked " + asked);
      line(c.getSchema() + " " + c.getTransactionIsolation() + " " + c.isValid(5) + " " + c.isReadOnly() + " " + c.getHoldability() + " " + c.getClientInfo());
      c.setReadOnly(true); c.setAutoCommit(false); c.setTransactionIsolation(Connection.TRANSACTION_READ_UNCOMMITTED);
      for (String sql : new String[] {"select * from customers order by id", "select * from \\"Odd Name\\"", "select o.*, c.name from orders o join customers c on c.id = o.customer order by o.id", "select * from bookings", "select * from v_names order by id", "select * from pg_class where relname = 'customers'", "select 'ok'::mood, array['ok'::mood], 1::positive, row('a', 1)::place, '[1,2]'::span, 1 as n"}) {
        try (PreparedStatement s = c.prepareStatement(sql)) {
          s.setFetchSize(2); ResultSet r = s.executeQuery(); ResultSetMetaData m = r.getMetaData(); StringBuilder b = new StringBuilder(sql);
          for (int i = 1; i <= m.getColumnCount(); i++) b.append(" | ").append(m.getColumnName(i)).append(' ').append(m.getColumnTypeName(i)).append(' ').append(m.getColumnClassName(i)).append(' ').append(m.getPrecision(i)).append(' ').append(m.getScale(i))
            .append(' ').append(m.isNullable(i)).append(' ').append(m.isAutoIncrement(i)).append(' ').append(m.getTableName(i)).append(' ').append(m.getSchemaName(i)).append(' ').append(((org.postgresql.PGResultSetMetaData) m).getBaseColumnName(i));
          line(b.toString()); rows(sql, r);
        } catch (SQLException e) { failed(sql, e); c.rollback(); }
      }
      try (PreparedStatement s = c.prepareStatement("select name from customers where id = ? and mood = ?::mood and region = any (?)")) {
        ParameterMetaData p = s.getParameterMetaData(); for (int i = 1; i <= p.getParameterCount(); i++) line("parameter " + p.getParameterTypeName(i) + " " + p.getParameterClassName(i));
        s.setInt(1, 1); s.setString(2, "ok"); s.setArray(3, c.createArrayOf("int4", new Integer[] {1, 2})); for (int i = 0; i < 7; i++) rows("prepared", s.executeQuery());
      } catch (SQLException e) { failed("prepared", e); c.rollback(); }
      try (CallableStatement s = c.prepareCall("{? = call upper(?)}")) { s.registerOutParameter(1, Types.VARCHAR); s.setString(2, "called"); s.execute(); line(s.getString(1)); } catch (SQLException e) { failed("call", e); c.rollback(); }
      try (Statement s = c.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE)) { ResultSet r = s.executeQuery("select id, name from regions order by id"); line("updatable " + r.last() + " " + r.getRow() + " " + (r.getConcurrency() == ResultSet.CONCUR_UPDATABLE)); r.moveToInsertRow(); } catch (SQLException e) { failed("updatable", e); c.rollback(); }
      c.rollback(); c.setAutoCommit(true); c.setSchema("hr"); line(c.getSchema()); c.setSchema("public");
    }
    System.out.println("done");
  }
}
`;
