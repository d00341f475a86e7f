// Package testtls makes certificates for tests, good ones and bad ones.
package testtls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority signs certificates and keeps them in files.
type Authority struct {
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// NewAuthority makes one whose own certificate is in the file of its name.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	a := &Authority{dir: t.TempDir()}
	a.key, a.cert = a.issue(t, name, &x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().Add(time.Hour),
	})
	return a
}

// Leaf issues a certificate for servers at the addresses, and for clients.
func (a *Authority) Leaf(t testing.TB, name string, hosts ...net.IP) {
	t.Helper()
	a.LeafUntil(t, name, time.Now().Add(time.Hour), hosts...)
}

// LeafUntil is Leaf for a certificate that ends then.
func (a *Authority) LeafUntil(t testing.TB, name string, until time.Time, hosts ...net.IP) {
	t.Helper()
	a.issue(t, name, &x509.Certificate{
		IPAddresses: hosts, KeyUsage: x509.KeyUsageDigitalSignature, NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

// File is where the certificate ("crt") or the key ("key") of that name is.
func (a *Authority) File(name, suffix string) string { return filepath.Join(a.dir, name+"."+suffix) }

// Trust is a client's configuration that trusts a and shows the certificates.
func (a *Authority) Trust(t testing.TB, show ...string) *tls.Config {
	t.Helper()
	c := &tls.Config{RootCAs: x509.NewCertPool()}
	c.RootCAs.AddCert(a.cert)
	for _, name := range show {
		c.Certificates = append(c.Certificates, a.Pair(t, name))
	}
	return c
}

// Pair is the certificate of that name with its key.
func (a *Authority) Pair(t testing.TB, name string) tls.Certificate {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(a.File(name, "crt"), a.File(name, "key"))
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (a *Authority) issue(t testing.TB, name string, c *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.Subject = pkix.Name{CommonName: name}
	c.NotBefore = time.Now().Add(-2 * time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pkcs, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for suffix, block := range map[string]*pem.Block{"crt": {Type: "CERTIFICATE", Bytes: der}, "key": {Type: "PRIVATE KEY", Bytes: pkcs}} {
		if err := os.WriteFile(a.File(name, suffix), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return key, cert
}
