// Does as programs by franz-go's client of registries do, and prints what it saw: `client URL`.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/twmb/franz-go/pkg/sr"
)

const own = `{"type":"record","name":"Go","namespace":"drivers","fields":[{"name":"n","type":"long"}]}`
const narrower = `{"type":"record","name":"Go","namespace":"drivers","fields":[{"name":"n","type":"long"},{"name":"m","type":"long"}]}`

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	ctx := context.Background()
	options := []sr.ClientOpt{sr.URLs(os.Args[1])}
	if user := os.Getenv("REGISTRY_USER"); user != "" {
		options = append(options, sr.BasicAuth(user, os.Getenv("REGISTRY_PASSWORD")))
	}
	client := must(sr.NewClient(options...))
	latest := must(client.SchemaByVersion(ctx, "drivers-value", -1))
	created := must(client.CreateSchema(ctx, "go-value", sr.Schema{Schema: own}))
	for _, result := range client.SetCompatibility(ctx, sr.SetCompatibility{Level: sr.CompatFullTransitive}, "go-value") {
		check(result.Err)
	}
	level := client.Compatibility(ctx, "go-value")[0]
	check(level.Err)
	compatible := must(client.CheckCompatibility(ctx, "go-value", -1, sr.Schema{Schema: narrower}))
	_, refused := client.CreateSchema(ctx, "go-value", sr.Schema{Schema: narrower})
	_, unknown := client.SchemaByID(ctx, 77777)
	listed := []string{}
	for _, each := range must(client.AllSchemas(ctx)) {
		listed = append(listed, fmt.Sprintf("%s/%d=%d", each.Subject, each.Version, each.ID))
	}
	check(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"latest":     latest.ID,
		"schema":     must(client.SchemaByID(ctx, latest.ID)).Schema,
		"created":    created.ID,
		"looked_up":  must(client.LookupSchema(ctx, "go-value", sr.Schema{Schema: own})).ID,
		"versions":   must(client.SubjectVersions(ctx, "go-value")),
		"subjects":   must(client.Subjects(ctx)),
		"level":      level.Level.String(),
		"compatible": compatible.Is,
		"refused":    refused != nil,
		"unknown":    unknown != nil,
		"listed":     listed,
	}))
}
