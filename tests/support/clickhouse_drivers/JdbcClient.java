import com.fasterxml.jackson.databind.ObjectMapper;
import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Timestamp;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;

/** Connects as DBeaver, Metabase and Spark do, reads the table `typed`, writes a row into it, and prints what it saw. */
public class JdbcClient {
  static final String[] COLUMNS = {"id", "name", "tags", "scores", "price", "at", "kind", "ok", "few", "many"};

  public static void main(String[] args) throws Exception {
    // The driver as it was until 0.8, which the new one still has in it.
    if (args[1].equals("v1")) System.setProperty("clickhouse.jdbc.v1", "true");
    Map<String, Object> seen = new LinkedHashMap<>();
    try (Connection ops = connect(args[0], "ops", args[1])) {
      try (var statement = ops.createStatement(); ResultSet rows = statement.executeQuery("SELECT currentDatabase()")) {
        rows.next();
        seen.put("database", rows.getString(1));
      }
      seen.put("version", ops.getMetaData().getDatabaseProductVersion());
      Map<String, String> columns = new LinkedHashMap<>();
      try (ResultSet rows = ops.getMetaData().getColumns(null, "tailrace", "typed", null)) {
        while (rows.next()) columns.put(rows.getString("COLUMN_NAME"), rows.getString("TYPE_NAME"));
      }
      seen.put("columns", columns);
      List<String> tables = new ArrayList<>();
      try (ResultSet rows = ops.getMetaData().getTables(null, "tailrace", "typ%", null)) {
        while (rows.next()) tables.add(rows.getString("TABLE_NAME"));
      }
      seen.put("tables", tables);
      seen.put("rows", rows(ops));
      seen.put("unknown_table", code(ops, "SELECT * FROM nowhere"));
      seen.put("refused", code(ops, "DROP TABLE typed"));
    }
    try (Connection services = connect(args[0], "services", args[1])) {
      insert(services);
    }
    System.out.println(new ObjectMapper().writeValueAsString(seen));
  }

  static Connection connect(String server, String user, String compress) throws SQLException {
    Properties properties = new Properties();
    properties.setProperty("user", user);
    properties.setProperty("password", System.getenv("TOKEN_" + user.toUpperCase()));
    if (!compress.equals("v1")) { // whose default is to compress
      properties.setProperty("compress", compress);
      properties.setProperty("decompress", compress);
    }
    return DriverManager.getConnection("jdbc:clickhouse://" + server + "/tailrace", properties);
  }

  static List<Object> rows(Connection connection) throws SQLException {
    List<Object> all = new ArrayList<>();
    String sql = "SELECT * FROM typed WHERE (id >= ? AND id < 2000 OR id > 9000) AND at >= ? ORDER BY id";
    try (PreparedStatement statement = connection.prepareStatement(sql)) {
      statement.setLong(1, 1);
      statement.setTimestamp(2, Timestamp.from(java.time.Instant.parse("1950-01-01T00:00:00Z")));
      try (ResultSet rows = statement.executeQuery()) {
        while (rows.next()) {
          List<Object> row = new ArrayList<>();
          for (String name : COLUMNS) {
            row.add(name.equals("at") ? rows.getTimestamp(name).toInstant().toString() : plain(rows.getObject(name)));
          }
          all.add(row);
        }
      }
    }
    return all;
  }

  static int code(Connection connection, String sql) {
    try (var statement = connection.createStatement()) {
      statement.execute(sql);
      return 0;
    } catch (SQLException error) {
      return error.getErrorCode();
    }
  }

  static void insert(Connection connection) throws SQLException {
    String sql = "INSERT INTO typed (id, name, price, at, kind, ok) VALUES (?, ?, ?, ?, ?, ?)";
    try (PreparedStatement statement = connection.prepareStatement(sql)) {
      statement.setLong(1, 2001);
      statement.setString(2, "it's \\ jdbc");
      statement.setBigDecimal(3, new BigDecimal("7.2500"));
      statement.setString(4, "2024-05-01 12:30:00.125"); // a Timestamp would be an expression
      statement.setString(5, "a");
      statement.setBoolean(6, true);
      statement.executeUpdate();
    }
  }

  static Object plain(Object value) throws SQLException {
    if (value instanceof java.sql.Array array) return plain(array.getArray());
    if (value instanceof Map<?, ?> map) {
      Map<String, Object> sorted = new TreeMap<>();
      for (var entry : map.entrySet()) sorted.put(entry.getKey().toString(), plain(entry.getValue()));
      return sorted;
    }
    if (value instanceof List<?> list) return plain(list.toArray());
    if (value != null && value.getClass().isArray()) {
      List<Object> values = new ArrayList<>();
      for (int at = 0; at < java.lang.reflect.Array.getLength(value); at++) {
        values.add(plain(java.lang.reflect.Array.get(value, at)));
      }
      return values;
    }
    if (value instanceof BigDecimal decimal) return decimal.setScale(4).toPlainString();
    return value == null || value instanceof Boolean ? value : value.toString();
  }
}
