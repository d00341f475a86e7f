package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/zkq/zkq/coord"
)

// target is a parsed coordinator URL.
type target struct {
	scheme string   // local, etcd, etcds, zk, zks
	dir    string   // absolute path of the embedded store
	hosts  []string // each host:port
	prefix string   // "" or "/a/b"
}

// String returns a URL for the same coordinator that does not depend on the working
// directory.
func (t target) String() string {
	if t.scheme == "local" {
		return "local:" + t.dir
	}
	return t.scheme + "://" + strings.Join(t.hosts, ",") + t.prefix
}

// encrypted reports whether the scheme uses TLS.
func (t target) encrypted() bool { return t.scheme == "etcds" || t.scheme == "zks" }

// parseTarget parses a coordinator's URL. "" means the embedded store in the user's data
// directory. Errors never contain the user information of the URL. openCoordinator says
// what else a new scheme needs.
func parseTarget(url string, env environment) (target, error) {
	if url == "" {
		url = "local:"
	}
	scheme, rest, ok := strings.Cut(url, ":")
	if !ok {
		return target{}, fmt.Errorf("%q: has no scheme; allowed are local:, etcd://, etcds://, zk:// and zks://", cutQuery(url))
	}
	port := "2379"
	switch scheme {
	case "local":
		dir, err := localDir(rest, env)
		return target{scheme: scheme, dir: dir}, err
	case "zk", "zks":
		port = "2181"
	case "etcd", "etcds":
	default:
		return target{}, fmt.Errorf("scheme %q: allowed are local:, etcd://, etcds://, zk:// and zks://", cutQuery(scheme))
	}
	rest, ok = strings.CutPrefix(rest, "//")
	if !ok {
		return target{}, fmt.Errorf("%s: must be followed by //HOST:PORT", scheme)
	}
	if shown := cutQuery(rest); shown != rest && !strings.Contains(rest, "@") {
		return target{}, fmt.Errorf("%q: no ? is allowed; set ZKQ_USER and ZKQ_PASSWORD_FILE to log in", scheme+"://"+shown)
	}
	t, err := serverTarget(scheme, port, rest)
	if before, _, ok := strings.Cut(rest, "@"); ok && (err != nil || !strings.Contains(before, "/")) {
		// A password with a slash in it makes the rest of the URL look like a path.
		return target{}, fmt.Errorf("%s URL: user information is not taken from URLs, which others can see; set ZKQ_USER and ZKQ_PASSWORD_FILE", scheme)
	}
	return t, err
}

// serverTarget parses the part of the URL after the two slashes: hosts and a prefix.
func serverTarget(scheme, port, rest string) (target, error) {
	hosts, prefix, _ := strings.Cut(rest, "/")
	t := target{scheme: scheme}
	if prefix = strings.TrimSuffix(prefix, "/"); prefix != "" {
		t.prefix = "/" + prefix
		if strings.ContainsAny(prefix, "?#") {
			return target{}, fmt.Errorf("prefix %q: must not contain ? or #", t.prefix)
		}
		if err := coord.CheckPath(t.prefix); err != nil {
			return target{}, fmt.Errorf("prefix: %w", err)
		}
	}
	for _, h := range strings.Split(hosts, ",") {
		host, err := hostPort(h, port)
		if err != nil {
			return target{}, err
		}
		t.hosts = append(t.hosts, host)
	}
	return t, nil
}

// hostPort checks an address and adds the default port if it has none.
func hostPort(address, port string) (string, error) {
	bad := func(why string) (string, error) {
		return "", fmt.Errorf("address %q: %s", address, why)
	}
	host := address
	if strings.Contains(address, ":") && !strings.HasSuffix(address, "]") {
		var err error
		if host, port, err = net.SplitHostPort(address); err != nil {
			return bad("allowed are HOST, HOST:PORT and [IPv6]:PORT")
		}
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || port[0] == '+' {
		return bad("ports are 1 to 65535")
	}
	if host == "" {
		return bad("the host is missing")
	}
	name, _, _ := strings.Cut(host, "%") // without the zone of an IPv6 address
	if strings.Contains(host, ":") && net.ParseIP(name) == nil || strings.ContainsAny(host, "/?#[] ") || printable(host) != host {
		return bad("is not a host's name")
	}
	return net.JoinHostPort(host, port), nil
}

// localDir returns the absolute directory of the embedded store. "" means the user's data
// directory.
func localDir(dir string, env environment) (string, error) {
	switch {
	case dir == "~" || strings.HasPrefix(dir, "~/"):
		return "", fmt.Errorf("local:%s: the shell does not expand ~ there; write local:\"$HOME\"%s", dir, dir[1:])
	case strings.ContainsRune(dir, 0):
		return "", fmt.Errorf("local:%q: is not a path", dir)
	case dir != "":
		return filepath.Abs(dir)
	case filepath.IsAbs(env["XDG_DATA_HOME"]):
		return filepath.Join(env["XDG_DATA_HOME"], "zkq"), nil
	case filepath.IsAbs(env["HOME"]):
		return filepath.Join(env["HOME"], ".local", "share", "zkq"), nil
	}
	return "", fmt.Errorf("local: neither XDG_DATA_HOME nor HOME says where your data directory is; name one with local:DIR")
}

// credentials holds the login and the TLS settings.
type credentials struct {
	user, password string
	tls            *tls.Config
}

// readCredentials reads the credentials from the environment. A variable that the target
// cannot use is an error: its user believes to be protected by it. Only the embedded
// store ignores them, because no other machine can reach it.
func readCredentials(t target, env environment) (credentials, error) {
	var c credentials
	if t.scheme == "local" {
		return c, nil
	}
	c.user = env["ZKQ_USER"]
	file := env["ZKQ_PASSWORD_FILE"]
	if (c.user == "") != (file == "") {
		return c, usageError("", "ZKQ_USER and ZKQ_PASSWORD_FILE go together: set both or neither")
	}
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return c, usageError("", "ZKQ_PASSWORD_FILE: %w", err)
		}
		c.password = strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
		if c.password == "" {
			return c, usageError("", "ZKQ_PASSWORD_FILE: %s is empty", file)
		}
	}
	if !t.encrypted() {
		for _, name := range []string{"ZKQ_CA_FILE", "ZKQ_CERT_FILE", "ZKQ_KEY_FILE"} {
			if env[name] != "" {
				return c, usageError("write "+t.scheme+"s:// for TLS, or unset "+name, "%s is set, and %s:// does not use TLS", name, t.scheme)
			}
		}
		return c, nil
	}
	c.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	if file := env["ZKQ_CA_FILE"]; file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return c, usageError("", "ZKQ_CA_FILE: %w", err)
		}
		c.tls.RootCAs = x509.NewCertPool()
		if !c.tls.RootCAs.AppendCertsFromPEM(pem) {
			return c, usageError("", "ZKQ_CA_FILE: %s holds no certificate in PEM form", file)
		}
	}
	cert, key := env["ZKQ_CERT_FILE"], env["ZKQ_KEY_FILE"]
	if (cert == "") != (key == "") {
		return c, usageError("", "ZKQ_CERT_FILE and ZKQ_KEY_FILE go together: set both or neither")
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return c, usageError("", "ZKQ_CERT_FILE, ZKQ_KEY_FILE: %w", err)
		}
		c.tls.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
