package proxy

import (
	"errors"
	"hash"
	"io"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy/tenant"
)

// errBodyDigest is a body that is not the one its tenant signed.
var errBodyDigest = errors.New("the request's body is not what its signed digest says")

// digestBody passes a body on whose digest was signed. Its last byte waits until the digest is known to be right, so that no upstream has all of a body that
// is wrong.
type digestBody struct {
	io.ReadCloser
	want *tenant.Digest
	hash hash.Hash
	last byte // not passed on yet
	held bool // there is one
	err  error
}

func newDigestBody(body io.ReadCloser, d *tenant.Digest) *digestBody {
	return &digestBody{ReadCloser: body, want: d, hash: d.New()}
}

// Read reads all but the last byte; that one comes with a digest that is right.
func (b *digestBody) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for b.err == nil {
		n, err := b.ReadCloser.Read(p)
		b.hash.Write(p[:n])
		if b.err = err; err == io.EOF && !b.want.Right(b.hash) {
			b.err = errBodyDigest
		}
		if n == 0 {
			continue
		}
		last := p[n-1]
		if b.held { // everything moves up by one
			copy(p[1:n], p[:n-1])
			p[0] = b.last
		} else {
			n--
		}
		b.last, b.held = last, true
		if n > 0 {
			return n, nil
		}
	}
	if b.err == io.EOF && b.held {
		p[0], b.held = b.last, false
		return 1, nil
	}
	return 0, b.err
}

// emptyBody holds a request without a body to its digest.
func (v *visit) emptyBody() error {
	if v.digest == nil || v.raw.ContentLength != 0 || v.digest.Right(v.digest.New()) {
		return nil
	}
	return exchange.Refuse(exchange.BadRequest, "%v", errBodyDigest)
}
