package network

import (
	"os"
	"strings"
	"testing"
)

func TestResolvConf(t *testing.T) {
	const host = "# comment\nnameserver 192.0.2.53 ; the first\nnameserver 127.0.0.1\nnameserver ::1\nnameserver 2001:db8::53\n" +
		"domain old.example\nsearch a.example b.example\noptions ndots:2 timeout:1\noptions edns0\nsortlist 192.0.2.0\n"
	tests := []struct {
		name, host string
		o          ResolvOptions
		want       string
	}{
		{"host's network", host, ResolvOptions{Mode: Host}, host},
		{"host's network, other servers", "nameserver 127.0.0.53\nsearch x\n", ResolvOptions{Mode: Host, DNS: []string{"192.0.2.1"}}, "nameserver 192.0.2.1\nsearch x\n"},
		{"private", host, ResolvOptions{Mode: Private},
			"nameserver 192.0.2.53\nnameserver 10.0.2.3\nsearch a.example b.example\noptions ndots:2 timeout:1 edns0\n"},
		{"only loopback", "nameserver 127.0.0.1\nnameserver ::1\n", ResolvOptions{Mode: Private}, "nameserver 10.0.2.3\n"},
		{"only IPv6", "nameserver 2001:db8::53\n", ResolvOptions{Mode: Private}, "nameserver 10.0.2.3\n"},
		{"empty", "", ResolvOptions{Mode: Private}, "nameserver 10.0.2.3\n"},
		{"garbage", "nameserver nonsense\nnameserver\n", ResolvOptions{Mode: Private}, "nameserver 10.0.2.3\n"},
		{"all given", host, ResolvOptions{Mode: Private, DNS: []string{"192.0.2.1", "2001:db8::1"}, Search: []string{"c.example"}, Opts: []string{"rotate"}},
			"nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch c.example\noptions rotate\n"},
		{"no search", host, ResolvOptions{Mode: Private, Search: []string{"."}},
			"nameserver 192.0.2.53\nnameserver 10.0.2.3\noptions ndots:2 timeout:1 edns0\n"},
		{"no network", "nameserver 127.0.0.1\n", ResolvOptions{Mode: None}, "nameserver 127.0.0.1\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := resolvConf([]byte(tt.host), tt.o)
			if err != nil || string(got) != tt.want {
				t.Errorf("got %q, %v\nwant %q", got, err, tt.want)
			}
		})
	}
	for _, o := range []ResolvOptions{{DNS: []string{"dns.example"}}, {Search: []string{"a b"}}, {Search: []string{"a\nnameserver 192.0.2.66"}}, {Opts: []string{""}}} {
		if b, err := resolvConf(nil, o); err == nil {
			t.Errorf("%+v: %q", o, b)
		}
	}
}

func TestHosts(t *testing.T) {
	gateway, gatewayErr := hostGateway(Private)
	tests := []struct {
		name string
		o    HostsOptions
		want string // after the head
		err  string
	}{
		{"private", HostsOptions{Mode: Private, Hostname: "box"}, "10.0.2.100\tbox\n", ""},
		{"domain", HostsOptions{Mode: Private, Hostname: "box", Domainname: "example.com"}, "10.0.2.100\tbox.example.com box\n", ""},
		{"none", HostsOptions{Mode: None, Hostname: "box"}, "127.0.0.1\tbox\n", ""},
		{"extra", HostsOptions{Mode: Private, Extra: []string{"a:192.0.2.1", "b=192.0.2.2", "c:2001:db8::1", "d:[2001:db8::2]"}},
			"192.0.2.1\ta\n192.0.2.2\tb\n2001:db8::1\tc\n2001:db8::2\td\n", ""},
		{"no address", HostsOptions{Extra: []string{"a:b"}}, "", `invalid IP address "b"`},
		{"no name", HostsOptions{Extra: []string{":192.0.2.1"}}, "", "bad format"},
		{"neither", HostsOptions{Extra: []string{"x"}}, "", "bad format"},
		{"two lines", HostsOptions{Extra: []string{"a\nb:192.0.2.1"}}, "", "bad name"},
		{"gateway of none", HostsOptions{Mode: None, Extra: []string{"h:host-gateway"}}, "", "no network"},
	}
	if gatewayErr == nil {
		tests = append(tests, struct {
			name string
			o    HostsOptions
			want string
			err  string
		}{"gateway", HostsOptions{Mode: Private, Extra: []string{"h:host-gateway"}}, gateway.String() + "\th\n", ""})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Hosts(tt.o)
			switch {
			case tt.err != "":
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %q, %v", got, err)
				}
			case err != nil || string(got) != hostsHead+tt.want:
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	own, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Skipf("needs /etc/hosts: %v", err)
	}
	got, err := Hosts(HostsOptions{Mode: Host, Hostname: "box", Extra: []string{"a:192.0.2.1"}})
	if err != nil || !strings.HasPrefix(string(got), string(own)) || !strings.HasSuffix(string(got), "\n192.0.2.1\ta\n") {
		t.Errorf("host's network: %q, %v", got, err)
	}
}

func TestParseMode(t *testing.T) {
	for s, want := range map[string]Mode{"host": Host, "none": None} {
		if m, warning, err := ParseMode(s); m != want || warning != "" || err != nil {
			t.Errorf("%s: %s, %q, %v", s, m, warning, err)
		}
	}
	for _, s := range []string{"container:x", "mine"} {
		if m, _, err := ParseMode(s); err == nil || !strings.Contains(err.Error(), s) {
			t.Errorf("%s: %s, %v", s, m, err)
		}
	}
	// Without a tool there is no private network: an error for those who ask for it, a warning for those who do not.
	t.Setenv("PATH", t.TempDir())
	if m, warning, err := ParseMode(""); m != None || !strings.Contains(warning, "slirp4netns nor pasta") || err != nil {
		t.Errorf("default: %s, %q, %v", m, warning, err)
	}
	if _, _, err := ParseMode("private"); err == nil || !strings.Contains(err.Error(), "apt-get install slirp4netns") {
		t.Errorf("private: %v", err)
	}
	if info := Probe(); info.Default != None || len(info.Tools) != 0 || len(info.Missing) != 1 {
		t.Errorf("Probe: %+v", info)
	}
}

func TestHostPorts(t *testing.T) {
	for s, want := range map[string][2]uint16{"": {0, 0}, "80": {80, 80}, "8000-8010": {8000, 8010}} {
		if a, b, err := hostPorts(s); a != want[0] || b != want[1] || err != nil {
			t.Errorf("%q: %d-%d, %v", s, a, b, err)
		}
	}
	for _, s := range []string{"x", "70000", "10-5", "5-", "-5", "1-70000"} {
		if a, b, err := hostPorts(s); err == nil {
			t.Errorf("%q: %d-%d", s, a, b)
		}
	}
}
