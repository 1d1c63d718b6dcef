package programs

import (
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest/shell"
)

// sqliteLower makes a database of 5,000 rows, and beside it one whose last transactions are in the -wal only, as a
// crash leaves it.
const sqliteLower = `
sqlite3 -batch db '
	CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT UNIQUE, size INT, body BLOB);
	WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
	INSERT INTO item SELECT i, "name " || i, i * 7 % 1000, zeroblob(i % 500) FROM n;
	CREATE INDEX by_size ON item(size);
'
sqlite3 -batch live >/dev/null '
	PRAGMA journal_mode = WAL;
	CREATE TABLE t(x);
	PRAGMA wal_checkpoint(TRUNCATE);
	WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) INSERT INTO t SELECT i FROM n;
' '.shell cp live crashed && cp live-wal crashed-wal'
rm -f live live-wal live-shm
test -s crashed-wal
`

// sqliteWork changes the database in the journal mode $1.
const sqliteWork = `
sqlite3 -batch db "PRAGMA journal_mode = $1" 'PRAGMA synchronous = FULL' '
	BEGIN;
	UPDATE item SET size = size + 1 WHERE id % 3 = 0;
	DELETE FROM item WHERE id BETWEEN 1000 AND 1999;
	COMMIT;
	BEGIN;
	DELETE FROM item;
	ROLLBACK;
	INSERT INTO item SELECT id + 10000, "again " || id, size, body FROM item WHERE id < 500;
	CREATE TABLE copy AS SELECT * FROM item;
'
# Four writers and a reader at once: locks, and with WAL a shared mapping of -shm. A full copy-up has been made.
sqlite3 -batch db 'CREATE TABLE hits(writer INT, n INT)'
pids=()
for w in 1 2 3 4; do
	(for n in $(seq 25); do echo ".timeout 600000
		BEGIN IMMEDIATE; INSERT INTO hits VALUES ($w, $n); UPDATE item SET size = size + 1 WHERE id = 5; COMMIT;"
	done | sqlite3 -batch -bail db) &
	pids+=($!)
done
(for n in $(seq 25); do echo '.timeout 600000
	SELECT count(*) FROM item WHERE id < 1000;'
done | sqlite3 -batch -bail db | sort -u) &
pids+=($!)
for p in "${pids[@]}"; do wait "$p"; done
sqlite3 -batch db 'SELECT writer, count(*), sum(n) FROM hits GROUP BY writer' 'SELECT size FROM item WHERE id = 5'
# The order in which the writers came is not the test's business.
sqlite3 -batch db 'CREATE TABLE sorted AS SELECT * FROM hits ORDER BY writer, n; DROP TABLE hits' 'VACUUM'
sqlite3 -batch crashed 'SELECT count(*), sum(x) FROM t' 'INSERT INTO t VALUES (-1)'
`

// sqliteState is the whole content, and ends with "ok" for each database that is sound.
const sqliteState = `
sqlite3 -batch db .dump
sqlite3 -batch crashed .dump
sqlite3 -batch db 'PRAGMA integrity_check' 'PRAGMA foreign_key_check'
sqlite3 -batch crashed 'PRAGMA integrity_check'
`

func TestSqlite(t *testing.T) {
	need(t, "sqlite3")
	for _, mode := range []string{"WAL", "DELETE", "TRUNCATE", "PERSIST"} {
		if mode != "WAL" && mode != "DELETE" && !long {
			continue
		}
		t.Run(mode, func(t *testing.T) {
			everywhere(t, anyone, nil, func(t *testing.T, p place) {
				l := p.layers(t, sqliteLower)
				ref := outside(t, l, ".")
				m := p.mount(t, l)

				got := shell.Run(t, l.Helper(), m.Dir(), sqliteWork, mode)
				shell.Same(t, "what queries say", got, shell.Run(t, l.Helper(), ref, sqliteWork, mode))

				dump := shell.Run(t, l.Helper(), m.Dir(), sqliteState)
				if !strings.HasSuffix(dump, "\nok\nok\n") {
					t.Errorf("integrity_check: %s", shell.Tail(dump))
				}
				shell.Same(t, "dump", dump, shell.Run(t, l.Helper(), ref, sqliteState))

				m.Remount()
				shell.Same(t, "dump after a remount", shell.Run(t, l.Helper(), m.Dir(), sqliteState), dump)
			})
		})
	}
}
