// JDBC: metadata, prepared statements in text and binary, fetch size, COPY, cancel by time-out.
//   java -cp /usr/share/java/postgresql.jar JdbcClient.java

import java.io.StringWriter;
import java.sql.*;
import java.util.*;

public class JdbcClient {
    static void check(Object got, Object expected) {
        if (!Objects.equals(got, expected)) throw new AssertionError("got " + got + ", expected " + expected);
    }

    static List<String> column(ResultSet rows, String name) throws SQLException {
        List<String> values = new ArrayList<>();
        while (rows.next()) values.add(rows.getString(name));
        return values;
    }

    public static void main(String[] arguments) throws Exception {
        try (Connection connection = DriverManager.getConnection(System.getenv("FLUMEN_JDBC"))) {
            DatabaseMetaData about = connection.getMetaData();
            check(about.getDatabaseProductName(), "PostgreSQL");
            check(column(about.getSchemas(), "TABLE_SCHEM").containsAll(List.of("raw", "mart")), true);
            check(column(about.getTables(null, "raw", "%", new String[] {"TABLE"}), "TABLE_NAME"), List.of("people"));
            List<String> columns = column(about.getColumns(null, "raw", "people", "%"), "COLUMN_NAME");
            check(columns.subList(0, 6), List.of("id", "name", "fare", "day", "at", "ok"));
            try (ResultSet column = about.getColumns(null, "raw", "people", "id")) {
                check(column.next(), true);
                check(column.getInt("DATA_TYPE"), Types.BIGINT);
                check(column.getString("IS_NULLABLE"), "YES");
            }
            check(about.getPrimaryKeys(null, "raw", "people").next(), false);
            check(about.getIndexInfo(null, "raw", "people", false, false).next(), false);
            check(about.getImportedKeys(null, "raw", "people").next(), false);
            check(about.getTypeInfo().next(), true);
            check(column(about.getCatalogs(), "TABLE_CAT"), List.of("lake"));

            String query = "select id, name, fare, day, at, ok from raw.people where id >= ? and name <> ? order by id";
            try (PreparedStatement statement = connection.prepareStatement(query)) {
                // After five times the driver asks for binary.
                for (int time = 0; time < 8; time++) {
                    statement.setLong(1, 1);
                    statement.setString(2, "ann");
                    try (ResultSet rows = statement.executeQuery()) {
                        check(rows.next(), true);
                        check(rows.getLong(1), 2L);
                        check(rows.getString(2), "bob");
                        check(rows.getDouble(3), 2.25);
                        check(rows.getDate(4).toString(), "2019-01-02");
                        check(rows.getTimestamp(5).toString(), "2019-01-02 11:30:00.5");
                        check(rows.getBoolean(6), false);
                        check(rows.next(), false);
                    }
                }
            }
            // Rows a few at a time.
            connection.setAutoCommit(false);
            try (Statement statement = connection.createStatement()) {
                statement.setFetchSize(1000);
                long sum = 0;
                try (ResultSet rows = statement.executeQuery("select value from generate_series(1, 5000)")) {
                    while (rows.next()) sum += rows.getLong(1);
                }
                check(sum, 12502500L);
            }
            connection.rollback();
            connection.setAutoCommit(true);

            StringWriter out = new StringWriter();
            new org.postgresql.copy.CopyManager((org.postgresql.core.BaseConnection) connection)
                    .copyOut("copy (select id, name from raw.people order by id) to stdout (format csv)", out);
            check(out.toString(), "1,ann\n2,bob\n3,\n");

            try (Statement statement = connection.createStatement()) {
                statement.execute("select nope from raw.people");
                throw new AssertionError("it was not refused");
            } catch (SQLException error) {
                check(error.getSQLState(), "42703");
            }
            try (Statement statement = connection.createStatement()) {
                statement.setQueryTimeout(1);
                statement.executeQuery("select count(*) from generate_series(1, 100000000000) a(x) where x % 7 = 3");
                throw new AssertionError("it was not stopped");
            } catch (SQLException error) {
                check(error.getSQLState(), "57014");
            }
            try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery("select 1")) {
                check(rows.next(), true);
            }
        }
        System.out.println("ok");
    }
}
