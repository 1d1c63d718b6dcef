package main

import "log/slog"

// enableDebug lets what is logged at the debug level be seen, on stderr.
func (a *app) enableDebug() {
	if a.debug {
		slog.SetLogLoggerLevel(slog.LevelDebug)
	}
}
