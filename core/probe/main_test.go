package probe

import (
	"os"
	"testing"

	"github.com/sluice-gateway/sluice/core/leak"
)

// TestMain fails the run when a test leaves a goroutine of this module or a descriptor behind.
func TestMain(m *testing.M) { os.Exit(leak.Check(m.Run)) }
