//go:build !unix

package main

import "io"

// terminalWidth knows no terminals here: records are JSON lines unless --output says otherwise.
func terminalWidth(io.Writer) (columns int, terminal bool) { return 0, false }
