package redis

import (
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"httpowerd/internal/state/memory"
)

// startCluster starts a cluster of one node.
func startCluster(t *testing.T) *server {
	t.Helper()
	s := startServer(t, "--cluster-enabled", "yes")
	slots := make([]int, 16384)
	for i := range slots {
		slots[i] = i
	}
	if err := s.raw.ClusterAddSlots(t.Context(), slots...).Err(); err != nil {
		t.Fatal(err)
	}
	s.stands()
	return s
}

// stands waits until the cluster says that it does.
func (s *server) stands() {
	s.t.Helper()
	eventually(s.t, "the cluster stands", func() bool {
		return strings.Contains(s.raw.ClusterInfo(s.t.Context()).Val(), "cluster_state:ok")
	})
}

func TestCluster(t *testing.T) {
	s := startCluster(t)
	if errs := openAt(t, s.url()+"?cluster=true").all(t.Context()); errs != nil {
		t.Error(errs)
	}
}

// A replica that takes the place of a master that died is used at once, though nobody is left who would redirect to it.
func TestClusterFailover(t *testing.T) {
	master := startCluster(t)
	replica := startServer(t, "--cluster-enabled", "yes")
	id := master.raw.ClusterMyID(t.Context()).Val()
	if err := replica.raw.ClusterMeet(t.Context(), "127.0.0.1", strconv.Itoa(master.port)).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "they have met", func() bool { return replica.raw.ClusterReplicate(t.Context(), id).Err() == nil })
	eventually(t, "one follows the other", func() bool {
		return strings.Contains(replica.raw.Info(t.Context(), "replication").Val(), "master_link_status:up") &&
			strings.Contains(master.raw.ClusterNodes(t.Context()).Val(), " slave "+id)
	})
	c := openAt(t, master.url()+"?addr="+replica.address(), func(c *Config) { c.Timeout = 250 * time.Millisecond })
	eventually(t, "it answers", func() bool { return c.take(t.Context()) == nil })
	master.kill()
	eventually(t, "it is known to be away", func() bool { return class(c.take(t.Context())) == Away })
	if err := replica.raw.Do(t.Context(), "CLUSTER", "FAILOVER", "TAKEOVER").Err(); err != nil {
		t.Fatal(err)
	}
	replica.stands()
	eventually(t, "the one that took over answers", func() bool { return c.take(t.Context()) == nil && c.Up() })
}

// What a cluster did and could not say is not done again.
func TestClusterLostAnswer(t *testing.T) {
	s := startCluster(t)
	r := startRelay(t, s.address())
	_, port, _ := net.SplitHostPort(r.listener.Addr().String())
	if err := s.raw.ConfigSet(t.Context(), "cluster-announce-port", port).Err(); err != nil {
		t.Fatal(err)
	}
	c := openAt(t, r.url()+"?cluster=true")
	const burst = 100
	take := func(want int) (int, error) {
		granted, _, err := c.Limits.Take(t.Context(), "few", memory.Rate{Requests: 1, Per: time.Hour, Burst: burst}, 1, want)
		return granted, err
	}
	eventually(t, "it answers", func() bool { return c.take(t.Context()) == nil })
	if n, err := take(1); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	key := c.key("limit", c.name("limit", "few"))
	before := s.raw.Get(t.Context(), key).Val()
	r.held.Store(true)
	lost := make(chan error)
	go func() {
		_, err := take(1)
		lost <- err
	}()
	eventually(t, "the server has taken", func() bool { return s.raw.Get(t.Context(), key).Val() != before })
	r.cut()
	r.held.Store(false)
	if err := <-lost; class(err) != Lost {
		t.Errorf("what broke before its answer ended with %v", err)
	}
	eventually(t, "it answers again", func() bool { return c.take(t.Context()) == nil })
	if n, err := take(burst); n != burst-2 || err != nil {
		t.Errorf("%d of %d are left after two were taken; %v", n, burst, err)
	}
}

// The users that the documentation makes may do all that is needed.
func TestDocumentedUsers(t *testing.T) {
	page, err := os.ReadFile("../../../docs/shared-state.md")
	if err != nil {
		t.Fatal(err)
	}
	user := strings.Fields(regexp.MustCompile(`(?m)^    (ACL SETUSER .*)$`).FindString(string(page)))
	besides := regexp.MustCompile("In a cluster it also needs `([^`]+)`").FindStringSubmatch(string(page))
	if len(user) < 5 || besides == nil {
		t.Fatalf("%q, and %q in a cluster", user, besides)
	}
	name, password := user[2], strings.TrimPrefix(user[4], ">")
	for parameter, s := range map[string]*server{"": startServer(t), "?cluster=true": startCluster(t)} {
		rule := user
		if parameter != "" {
			rule = append(slices.Clone(user), besides[1])
		}
		args := make([]any, len(rule))
		for i, word := range rule {
			args[i] = word
		}
		if err := s.raw.Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
		c := openAt(t, "redis://"+name+":"+password+"@"+s.address()+parameter, func(c *Config) { c.Prefix = "httpowerd" })
		if errs := c.all(t.Context()); errs != nil {
			t.Errorf("%s: %v", parameter, errs)
		}
		eventually(t, "it hears of changes", func() bool {
			c.Gates.mu.Lock()
			defer c.Gates.mu.Unlock()
			return c.Gates.live
		})
		eventually(t, "it is well", c.Up)
	}
}
