package main_test

import (
	"os"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Run(m.Run)) }
