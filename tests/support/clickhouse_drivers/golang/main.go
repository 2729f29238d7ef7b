// Connects as Grafana's data source does, reads the table `typed`, writes a row into it, and prints what it saw.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/shopspring/decimal"
)

var methods = map[string]clickhouse.CompressionMethod{
	"none": clickhouse.CompressionNone,
	"lz4":  clickhouse.CompressionLZ4,
	"zstd": clickhouse.CompressionZSTD,
	"gzip": clickhouse.CompressionGZIP,
}

func connect(server, method, user string) driver.Conn {
	connection, err := clickhouse.Open(&clickhouse.Options{
		Addr:     []string{server},
		Protocol: clickhouse.HTTP,
		Auth: clickhouse.Auth{
			Database: "tailrace",
			Username: user,
			Password: os.Getenv("TOKEN_" + strings.ToUpper(user)),
		},
		Settings:    clickhouse.Settings{"max_execution_time": 30},
		Compression: &clickhouse.Compression{Method: methods[method]},
	})
	check(err)
	return connection
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func code(err error) int32 {
	var exception *clickhouse.Exception
	if errors.As(err, &exception) {
		return exception.Code
	}
	if err != nil {
		// Over HTTP the code is in the text.
		var number int32
		at := strings.Index(err.Error(), "Code: ")
		if at >= 0 {
			fmt.Sscanf(err.Error()[at:], "Code: %d", &number)
			return number
		}
		return -1
	}
	return 0
}

func main() {
	ctx := context.Background()
	server, method := os.Args[1], os.Args[2]
	ops := connect(server, method, "ops")
	version, err := ops.ServerVersion()
	check(err)
	seen := map[string]any{"version": version.Version.String()}
	var database string
	check(ops.QueryRow(ctx, "SELECT currentDatabase()").Scan(&database))
	seen["database"] = database

	rows, err := ops.Query(ctx, "SELECT * FROM typed WHERE id >= ? AND id < 2000 OR id > 9000 ORDER BY id", 1)
	check(err)
	var all []any
	for rows.Next() {
		var (
			id     uint64
			name   *string
			tags   []string
			scores map[string]float64
			price  decimal.Decimal
			at     time.Time
			kind   string
			ok     bool
			few    *int32
			many   []*int64
		)
		check(rows.Scan(&id, &name, &tags, &scores, &price, &at, &kind, &ok, &few, &many))
		all = append(all, []any{
			fmt.Sprint(id), name, tags, scores, price.StringFixed(4), at.UTC().Format("2006-01-02T15:04:05.000Z"),
			kind, ok, few, many,
		})
	}
	check(rows.Err())
	seen["rows"] = all

	var names []string
	tables, err := ops.Query(ctx, "SHOW TABLES")
	check(err)
	for tables.Next() {
		var name string
		check(tables.Scan(&name))
		names = append(names, name)
	}
	seen["tables"] = names
	large, err := ops.Query(ctx, "SELECT number, toString(number), [number] FROM numbers(300000)")
	check(err)
	var sum uint64
	for large.Next() {
		var number uint64
		var text string
		var list []uint64
		check(large.Scan(&number, &text, &list))
		if text != fmt.Sprint(number) || list[0] != number {
			check(fmt.Errorf("%d is %q and %v", number, text, list))
		}
		sum += number
	}
	check(large.Err())
	seen["sum"] = sum
	empty, err := ops.Query(ctx, "SELECT id FROM typed WHERE 0")
	check(err)
	seen["empty"] = !empty.Next()
	seen["unknown_table"] = code(ops.Exec(ctx, "SELECT * FROM nowhere"))
	seen["refused"] = code(ops.Exec(ctx, "DROP TABLE typed"))

	services := connect(server, method, "services")
	batch, err := services.PrepareBatch(ctx, "INSERT INTO typed (id, name, price, at, kind, ok)")
	check(err)
	name := "it's \\ go"
	at := time.Date(2024, 5, 1, 12, 30, 0, 125_000_000, time.UTC)
	check(batch.Append(uint64(2003), &name, decimal.RequireFromString("7.25"), at, "a", true))
	check(batch.Send())
	check(json.NewEncoder(os.Stdout).Encode(seen))
}
