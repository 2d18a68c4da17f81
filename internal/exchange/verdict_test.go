package exchange

import "testing"

func TestShouldRetry(t *testing.T) {
	for _, c := range []struct {
		values []string
		want   Verdict
	}{
		{nil, Unsaid}, {[]string{""}, Unsaid}, {[]string{"maybe"}, Unsaid}, {[]string{"true, true"}, Unsaid},
		{[]string{"true"}, Again}, {[]string{" True\t"}, Again}, {[]string{"soon", "TRUE"}, Again},
		{[]string{"false"}, Final}, {[]string{"true", "False"}, Final}, {[]string{"false", "true"}, Final},
	} {
		if got := ShouldRetry(c.values); got != c.want {
			t.Errorf("%q is %d; want %d", c.values, got, c.want)
		}
	}
}
