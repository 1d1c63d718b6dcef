// Package scrape reads the metrics of real mounts and containers, with Prometheus itself too, and holds what is in
// deploy/ against them.
package scrape
