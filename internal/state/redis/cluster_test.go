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

const allSlots = 16384

// startCluster starts a cluster of one node.
func startCluster(t *testing.T) *server {
	t.Helper()
	s := startNode(t, 0, allSlots)
	s.stands()
	return s
}

// startNode starts a node of a cluster that owns the slots from one up to another.
func startNode(t *testing.T, from, to int) *server {
	t.Helper()
	s := startServer(t, "--cluster-enabled", "yes")
	var slots []int
	for slot := from; slot < to; slot++ {
		slots = append(slots, slot)
	}
	if slots == nil {
		return s
	}
	if err := s.raw.ClusterAddSlots(t.Context(), slots...).Err(); err != nil {
		t.Fatal(err)
	}
	return s
}

// meet makes s one of a cluster.
func (s *server) meet(one *server) {
	s.t.Helper()
	if err := s.raw.ClusterMeet(s.t.Context(), "127.0.0.1", strconv.Itoa(one.port)).Err(); err != nil {
		s.t.Fatal(err)
	}
}

// follow makes s the replica of a node that it has met.
func (s *server) follow(master *server) {
	s.t.Helper()
	id := master.raw.ClusterMyID(s.t.Context()).Val()
	eventually(s.t, "they have met", func() bool { return s.raw.ClusterReplicate(s.t.Context(), id).Err() == nil })
	eventually(s.t, "one follows the other", func() bool {
		return strings.Contains(s.raw.Info(s.t.Context(), "replication").Val(), "master_link_status:up") &&
			strings.Contains(master.raw.ClusterNodes(s.t.Context()).Val(), " slave "+id)
	})
}

// takeOver makes a replica the master, whatever others think.
func (s *server) takeOver() {
	s.t.Helper()
	if err := s.raw.Do(s.t.Context(), "CLUSTER", "FAILOVER", "TAKEOVER").Err(); err != nil {
		s.t.Fatal(err)
	}
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
	replica := startNode(t, 0, 0)
	replica.meet(master)
	replica.follow(master)
	c := openAt(t, master.url()+"?addr="+replica.address(), func(c *Config) { c.Timeout = 250 * time.Millisecond })
	eventually(t, "it answers", func() bool { return c.take(t.Context()) == nil })
	master.kill()
	eventually(t, "it is known to be away", func() bool { return class(c.take(t.Context())) == Away })
	replica.takeOver()
	replica.stands()
	eventually(t, "the one that took over answers", func() bool { return c.take(t.Context()) == nil && c.Up() })
}

// Changes are told again when the node dies that told them, though all that is asked for lies elsewhere.
func TestClusterFailoverOfTheSubscription(t *testing.T) {
	const half = allSlots / 2
	lower, upper, replica := startNode(t, 0, half), startNode(t, half, allSlots), startNode(t, 0, 0)
	slot := func(key string) int { return int(lower.raw.ClusterKeySlot(t.Context(), key).Val()) }
	prefix := "" // under which the probe is on one node, and the channel on the other
	for i := 0; prefix == ""; i++ {
		if p := "test" + strconv.Itoa(i); slot("{probe}") < half != (slot(p+":v1:gates") < half) {
			prefix = p
		}
	}
	master := lower
	if slot("{probe}") < half {
		master = upper
	}
	for epoch, s := range []*server{lower, upper} { // or two of them may claim the same one, and the takeover is not believed
		if err := s.raw.Do(t.Context(), "CLUSTER", "SET-CONFIG-EPOCH", epoch+1).Err(); err != nil {
			t.Fatal(err)
		}
	}
	upper.meet(lower)
	replica.meet(lower)
	replica.follow(master)
	for _, s := range []*server{lower, upper, replica} {
		s.stands()
		eventually(t, "everybody knows everybody", func() bool {
			nodes := s.raw.ClusterNodes(t.Context()).Val()
			return strings.Count(nodes, " connected") == 3 && strings.Contains(nodes, "slave ") && !strings.Contains(nodes, "handshake") &&
				strings.Contains(s.raw.ClusterInfo(t.Context()).Val(), "cluster_current_epoch:2")
		})
	}
	c := openAt(t, lower.url()+"?addr="+upper.address(), func(c *Config) { c.Prefix = prefix })
	live := func() bool {
		c.Gates.mu.Lock()
		defer c.Gates.mu.Unlock()
		return c.Gates.live
	}
	eventually(t, "it answers", c.Up)
	eventually(t, "it hears of changes", live)
	master.kill()
	replica.takeOver()
	eventually(t, "it is known that nobody tells of changes", func() bool { return c.errorsOf(opSubscribe) > 0 })
	eventually(t, "it hears of changes again", live)
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
	taken := 1
	eventually(t, "the server has taken, and did not answer", func() bool { // else the client had first to make a connection, whose answers were held up as well
		before := s.raw.Get(t.Context(), key).Val()
		r.held.Store(true)
		defer r.held.Store(false)
		lost := make(chan error, 1)
		go func() {
			_, err := take(1)
			lost <- err
		}()
		for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if s.raw.Get(t.Context(), key).Val() == before {
				continue
			}
			r.cut()
			r.held.Store(false)
			taken++
			if err := <-lost; class(err) != Lost {
				t.Errorf("what broke before its answer ended with %v", err)
			}
			return true
		}
		r.held.Store(false)
		if <-lost == nil || s.raw.Get(t.Context(), key).Val() != before {
			taken++
		}
		return false
	})
	eventually(t, "it answers again", func() bool { return c.take(t.Context()) == nil })
	if n, err := take(burst); n != burst-taken || err != nil {
		t.Errorf("%d of %d are left after %d were taken; %v", n, burst, taken, err)
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
