package redis

import (
	"crypto/sha1"
	"embed"
	"encoding/hex"
)

//go:embed scripts/*.lua
var scriptFiles embed.FS

// script is what runs in the server. It is called by its hash, and sent with its text where the server does not know that.
type script struct {
	op, text, hash string
}

func loadScript(op, file string) *script {
	text, err := scriptFiles.ReadFile("scripts/" + file + ".lua")
	if err != nil {
		panic(err) // embedded
	}
	sum := sha1.Sum(text) // as the server does it
	return &script{op, string(text), hex.EncodeToString(sum[:])}
}

// The scripts.
var (
	takeScript    = loadScript(opTake, "take")
	publishScript = loadScript(opPublish, "publish")
	fetchScript   = loadScript(opFetch, "fetch")
	beginScript   = loadScript(opBegin, "begin")
	recordScript  = loadScript(opBegin, "record")
	finishScript  = loadScript(opFinish, "finish")
	releaseScript = loadScript(opRelease, "release")
	probeScript   = loadScript(opProbe, "probe")
)
