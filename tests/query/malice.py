"""Statements and values that mean harm, are broken, or are honest and look odd: what `test_safety` tries."""

from __future__ import annotations

READERS = [
    "SELECT * FROM read_csv('{f}.csv')", "SELECT * FROM read_csv_auto('{f}.csv')", "FROM '{f}.csv'", "FROM '{f}.json'",
    "FROM '{f}.parquet'", 'FROM "{f}.parquet"', "FROM '{f}*'", "SELECT * FROM read_json('{f}.json')",
    "SELECT * FROM read_ndjson_objects('{f}.json')", "SELECT * FROM read_json_objects_auto('{f}.json')",
    "SELECT * FROM read_parquet('{f}.parquet')", "SELECT * FROM parquet_scan(['{f}.parquet'])",
    "SELECT * FROM read_text('{f}.txt')", "SELECT * FROM read_blob('{f}.txt')", "SELECT * FROM glob('{f}*')",
    "SELECT * FROM sniff_csv('{f}.csv')", "SELECT * FROM parquet_metadata('{f}.parquet')",
    "SELECT * FROM parquet_schema('{f}.parquet')", "SELECT * FROM parquet_kv_metadata('{f}.parquet')",
    "SELECT * FROM parquet_file_metadata('{f}.parquet')", "SELECT * FROM parquet_full_metadata('{f}.parquet')",
    "SELECT * FROM parquet_bloom_probe('{f}.parquet', 'a', 'x')", "SELECT * FROM read_duckdb('{f}.duckdb')",
    "SELECT * FROM read_single_csv_file('{f}.csv')", "SELECT * FROM read_single_parquet_file('{f}.parquet')",
    "SELECT * FROM sqlite_scan('{f}.duckdb', 't')", "SELECT * FROM postgres_scan('host=x', 'a', 'b')",
    "SELECT * FROM iceberg_scan('{f}')", "SELECT * FROM delta_scan('{f}')", "SELECT * FROM st_read('{f}.csv')",
    "FROM 'https://example.org/a.parquet'", "FROM 's3://bucket/a.parquet'", "FROM 'file://{f}.csv'",
    "SELECT (SELECT content FROM read_text('{f}.txt'))", "SELECT EXISTS (FROM read_text('{f}.txt'))",
    "WITH a AS (FROM read_text('{f}.txt')) FROM a", "WITH a AS MATERIALIZED (FROM '{f}.csv') SELECT * FROM a",
    "WITH RECURSIVE r AS (SELECT a FROM '{f}.csv' UNION ALL SELECT a FROM r) FROM r",
    "EXPLAIN ANALYZE SELECT * FROM read_csv('{f}.csv')", "EXPLAIN SELECT * FROM '{f}.csv'", "DESCRIBE '{f}.csv'",
    "EXPLAIN (FORMAT json) FROM read_text('{f}.txt')", "SUMMARIZE '{f}.csv'", "DESCRIBE FROM read_text('{f}.txt')",
    "SELECT * FROM (PIVOT '{f}.csv' ON a IN ('1') USING count(*))", "FROM (UNPIVOT '{f}.csv' ON a, b)",
    "SELECT * FROM connection, LATERAL (SELECT * FROM read_text('{f}.txt'))",
    "FROM connection POSITIONAL JOIN '{f}.csv'", "SELECT * FROM connection WHERE pre IN (SELECT a FROM '{f}.csv')",
    "SELECT 1 UNION ALL SELECT a FROM '{f}.csv'",
    "SELECT list_transform([1], lambda x: (SELECT content FROM read_text('{f}.txt')))",
    "SELECT 1 ORDER BY (SELECT content FROM read_text('{f}.txt'))", "SELECT 1 LIMIT (SELECT a FROM '{f}.csv')",
    "VALUES ((SELECT content FROM read_text('{f}.txt')))", "/* SELECT 1 */ FROM/**/read_text/**/('{f}.txt')",
    "SELECT * FROM READ_TEXT('{f}.txt')", 'SELECT * FROM "read_text"(\'{f}.txt\')', "FROM main.read_text('{f}.txt')",
    "FROM system.main.read_text('{f}.txt')", "FROM query('FROM read_text(''{f}.txt'')')",
    "FROM query_table('{f}.csv')",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('FROM read_text(''{f}.txt'')'))",
    "SELECT json_serialize_plan('FROM read_text(''{f}.txt'')')", "SELECT getenv('CONNECTOME_SECRET')",
]  # fmt: skip
"""Ways to read the file {f} with its ending, or what surrounds the process."""

WRITERS = [
    "COPY (SELECT 1) TO '{out}/new.csv'", "COPY connection TO '{in}/new.parquet'", "COPY run FROM '{out}/secret.csv'",
    "EXPORT DATABASE '{out}/new'", "IMPORT DATABASE '{out}'", "ATTACH '{out}/secret.duckdb' AS s",
    "ATTACH '{out}/new.duckdb'", "ATTACH ':memory:' AS m", "DETACH memory", "INSTALL httpfs", "LOAD httpfs",
    "LOAD '{out}/x.duckdb_extension'", "FORCE INSTALL spatial FROM 'https://example.org'", "UPDATE EXTENSIONS",
    "SET threads = 1", "SET GLOBAL memory_limit = '90GB'", "RESET memory_limit", "SET VARIABLE a = 1",
    "PRAGMA version", "PRAGMA database_list", "CALL pragma_version()", "CALL enable_logging()",
    "CREATE SECRET s (TYPE s3)", "USE memory", "CREATE TABLE a AS FROM connection", "CREATE MACRO f() AS 1",
    "CREATE VIEW connection AS SELECT 1", "CREATE TRIGGER t AFTER INSERT ON run BEGIN SELECT 1; END;",
    "CREATE SEQUENCE s", "CREATE TYPE t AS ENUM ('a')", "DROP VIEW connection", "ALTER TABLE run ADD COLUMN x INT",
    "INSERT INTO run SELECT * FROM run", "DELETE FROM run", "UPDATE run SET stage = 'x'", "TRUNCATE run",
    "MERGE INTO run USING run r ON true WHEN MATCHED THEN DELETE",
    "WITH a AS (DELETE FROM run RETURNING stage) FROM a", "WITH a AS (COPY (SELECT 1) TO '{out}/new.csv') SELECT 1",
    "WITH a AS (INSERT INTO run FROM run RETURNING 1) SELECT 1", "EXPLAIN ANALYZE DELETE FROM run", "VACUUM",
    "ANALYZE", "CHECKPOINT", "BEGIN", "COMMIT", "ROLLBACK", "PREPARE p AS SELECT 1", "EXECUTE p", "DEALLOCATE p",
    "CONNECT 'quack:example.org'", "DISCONNECT", "COMMENT ON TABLE run IS 'x'", "SELECT 1; DROP VIEW connection",
    "SELECT 1;COPY (SELECT 1) TO '{out}/new.csv';", "SELECT 1 INTO x", "SELECT nextval('s')", "SELECT write_log('x')",
    "FROM truncate_duckdb_logs()", "FROM create_external_resource('a', 'b')", "FROM checkpoint()",
    "FROM enable_logging()",
]  # fmt: skip
"""Statements that write, load, connect or change a setting."""

LOOKERS = [
    "FROM duckdb_settings()", "FROM duckdb_secrets()", "FROM which_secret('s3://x', 's3')", "FROM duckdb_extensions()",
    "FROM duckdb_variables()", "FROM duckdb_logs", "FROM duckdb_logs()", "FROM duckdb_databases()",
    "FROM duckdb_databases", "FROM duckdb_temporary_files()", "FROM duckdb_external_file_cache()",
    "FROM pg_catalog.pg_settings", "FROM pg_settings", "FROM system.pg_catalog.pg_settings", "FROM sqlite_master",
    "FROM pragma_database_list", "SHOW memory_limit", "SHOW DATABASES", "SHOW VARIABLES",
    "SELECT current_setting('secret_directory')", "SELECT getvariable('a')", "SELECT @@secret_directory",
    "SELECT [current_setting(x) FOR x IN ['threads']]", "SELECT 'threads'.current_setting()",
    "SELECT system.main.current_setting('threads')", "SELECT 1 ORDER BY pg_sleep(9)", "SELECT sleep_ms(9000)",
    "SELECT finalize('\\x00'::BLOB)", "SELECT sum(synapses) EXPORT_STATE FROM connection",
    "SELECT __internal_decompress_string(1::UTINYINT)", "FROM test_all_types()", "FROM seq_scan('run')",
    "FROM pandas_scan(0)", "FROM arrow_scan(0, 0, 0)", "FROM python_map_function(1, 2)", "SELECT setseed(0.5)",
]  # fmt: skip
"""Statements that look behind the views, wait, or reach into memory."""

BROKEN = [
    "", ";", "--", "SELECT", "SELEC 1", "SELECT 'a", 'SELECT "a', "SELECT /* a", "SELECT (((1)", "SELECT 1 FROM", "\0",
    "SELECT 1\0; DROP VIEW run", "\ud800", "SELECT \x07", "SELECT $1", "SELECT ?", "SELECT $a, ?",
    "SELECT * FROM nope", "SELECT nope FROM run", "SELECT nope(1)", "SELECT 1 WHERE 'a'::INT = 1", "SELECT 1/0 + 'x'",
    "FROM run GROUP BY", "SELECT " + "(" * 5000 + "1" + ")" * 5000, "SELECT " + "-" * 3001 + "1",
    "SELECT 1" + "+1" * 20_000, "SELECT 1" + " UNION ALL SELECT 1" * 60_000, "FROM (" * 600 + "SELECT 1" + ")" * 600,
    "SELECT '" + "x" * 1_000_001 + "'", "💥", "SELECT error('x')", "SELECT 99999999999999999999::UBIGINT",
    "FROM connections(min_qualitty => 1)",
]  # fmt: skip

BOMBS = [
    "SELECT length(repeat('x', 1000000000)) FROM range(2048)", "SELECT repeat(repeat('x', 10000), 10000)",
    "SELECT repeat('x', 1000 * 1000 * 1000)", "SELECT repeat('x', 1e12::BIGINT)", "SELECT len(range(1000000000000))",
    "SELECT list_transform(range(99999), lambda x: range(99999))", "SELECT [repeat('x', 9999) for x in range(9999)]",
    "SELECT list_resize([1], 1000000000000)", "SELECT lpad('x', 2000000000, 'y')",
    "SELECT rpad('x', synapses, 'y') FROM run", "SELECT printf('%1000000000d', 1)",
    "SELECT printf('%*d', 1000000000, 1)", "SELECT format('{{:>1000000000}}', 'x')",
    "SELECT format('{{:{{}}}}', 'x', 1000000000)", "SELECT format(stage, 1) FROM run",
    "SELECT bitstring('1', 2147483647)", "SELECT bar(1, 0, 2, 1e12)", "SELECT unnest(generate_series(1, 10000000000))",
    "SELECT to_base(5, 2, 1000000000)", "SELECT equi_width_bins(0, 1, 1000000000, true)",
    "SELECT repeat('x', (SELECT 1000000000))", "SELECT repeat('x', $n)",
]  # fmt: skip
"""Calls that fill the memory before DuckDB can be stopped: refused before they run."""

ALLOWED = [
    "SELECT lpad(stage, 20, ' '), rpad(stage, 20, '.'), repeat('ab', 3), printf('%5.2f', 1.5) FROM run",
    "SELECT format('{:>8}', stage) FROM run",
    "SELECT [x for x in range(3)], range(len(stage)), range(0, least(len(stage), 10)) FROM run",
    "WITH \"odd name/.\" AS (SELECT 1 AS n) SELECT n FROM \"odd name/.\"",
    "SELECT c.pre, t.range FROM connection c, range(c.synapses) t",
    "FROM (PIVOT connection ON synapses IN (1, 2) USING count(*))", "FROM memory.main.connection",
    "SELECT table_name FROM information_schema.tables", "SELECT comment FROM duckdb_columns() LIMIT 1",
    "SHOW ALL TABLES",
    "SELECT pre FROM connection WHERE post IN (SELECT neuron FROM neuron) QUALIFY row_number() OVER () = 1",
    "SELECT lpad(stage, 9, '.'), lpad(stage, 90, '.'), lpad(stage, 900, '.') FROM run",
    "SELECT count(*) AS \"'; DROP VIEW run; --\" FROM run",
]  # fmt: skip

INJECTIONS = [
    "x' OR '1'='1", "'; DROP VIEW connection; --", "1; SELECT 1", "1) UNION ALL SELECT 1 --", "0x10", "1e3", "１２",
    "NULL", "1 OR 1=1", "$neuron", "?", "{{7*7}}", "\0", "-0", "18446744073709551616", "1.0", "true", "[1]", "", " ",
    "1\n2", "*", "(SELECT 1)", "read_text('/etc/passwd')", "nan", "inf", "9" * 5000, "\ud800",
]  # fmt: skip
