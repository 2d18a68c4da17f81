package intercept

import (
	"errors"
	"fmt"
	"time"
)

// DefaultLeafTTL is how long a leaf certificate lives where nothing is configured.
const DefaultLeafTTL = 24 * time.Hour

const (
	minLeafTTL = 10 * time.Minute
	maxLeafTTL = 397 * 24 * time.Hour // TLS clients of the large platforms refuse server certificates of 398 days and more
)

// Config is the ca: block.
type Config struct {
	// Dir is where the proxy's own CA lives, and is made when it is first needed. Without it, and without Cert and Key, nothing can be
	// intercepted.
	Dir string
	// Cert and Key are PEM files of a CA of your own (RSA, ECDSA or Ed25519; they may be one file). Then Dir is not looked at, and
	// whoever holds the key can read the traffic of every program that trusts the certificate.
	Cert, Key string
	// LeafTTL is the life of the certificates shown to clients. A short one limits the harm of a stolen process image; zero is
	// DefaultLeafTTL.
	LeafTTL time.Duration
}

// Validate looks at the block alone, without touching a file. The error lists every fault.
func (c Config) Validate() error {
	var faults []error
	if (c.Cert == "") != (c.Key == "") {
		faults = append(faults, errors.New("ca: cert and key belong together: write both, or neither and let the proxy make its own"))
	}
	if c.LeafTTL != 0 && (c.LeafTTL < minLeafTTL || c.LeafTTL > maxLeafTTL) {
		faults = append(faults, fmt.Errorf("ca: leaf_ttl is %s: write a duration from %s to %dd", c.LeafTTL, minLeafTTL, maxLeafTTL/(24*time.Hour)))
	}
	return errors.Join(faults...)
}

func (c Config) ttl() time.Duration {
	if c.LeafTTL == 0 {
		return DefaultLeafTTL
	}
	return c.LeafTTL
}

func (c Config) own() bool { return c.Cert != "" }
