package main

import "log/slog"

// enableDebug makes packages that log at the debug level do so, on stderr.
func (a *app) enableDebug() {
	if a.debug {
		slog.SetLogLoggerLevel(slog.LevelDebug)
	}
}
