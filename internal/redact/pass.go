package redact

// Pass redacts the parts of a record one by one, with memory that they share. Done ends it.
type Pass struct {
	r *Redactor
	m *memory
	c *Counts
}

// Begin begins a Pass.
func (r *Redactor) Begin(c *Counts) Pass { return Pass{r, borrow(), c} }

// Done gives the memory back.
func (p Pass) Done() { p.m.release() }

// Field is one value of the header field of that name without secrets, and value itself where it has none.
func (p Pass) Field(name, value string) string {
	text, _ := p.r.field(p.m, name, p.r.classifyHeader(name), value, p.c)
	return text
}

// AppendURL is Redactor.AppendURL.
func (p Pass) AppendURL(dst []byte, url string) []byte {
	dst, _ = p.r.appendURL(dst, toValid(url), options{m: p.m}, p.c)
	return dst
}

// AppendText is Redactor.AppendText.
func (p Pass) AppendText(dst []byte, s string) []byte {
	dst, _ = p.r.appendText(dst, toValid(s), options{m: p.m}, p.c)
	return dst
}
