// The cluster's certificates and kubeconfigs, made with Go's crypto/x509: one authority for Kubernetes, one for etcd
// (a certificate of the first must not open the second), one for the API server as a proxy, and the key that signs service account tokens.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

type authority struct {
	cert *x509.Certificate
	der  []byte
	key  *ecdsa.PrivateKey
}

// identity is what one certificate says.
type identity struct {
	name  string // of its files
	cn    string
	orgs  []string
	names []string
	ips   []string
}

func template(cn string, orgs []string) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: cn, Organization: orgs},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		BasicConstraintsValid: true,
	}
}

func newAuthority(cn string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := template(cn, nil)
	t.IsCA = true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{cert, der, key}, err
}

// issue makes a certificate that serves both as a client's and as a server's.
func (a *authority) issue(id identity) (cert, key []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := template(id.cn, id.orgs)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	t.DNSNames = id.names
	for _, ip := range id.ips {
		t.IPAddresses = append(t.IPAddresses, net.ParseIP(ip))
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, k.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	return pemCert(der), pemKey(k), nil
}

func pemCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func pemKey(k *ecdsa.PrivateKey) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func (c *cluster) pki(name string) string { return c.file("pki", name) }

// apiURL is the API server's address, for the host and for the pods alike.
func (c *cluster) apiURL() string {
	if c.Mode == modeFull {
		return "https://" + c.bridgeIP + ":6443"
	}
	return fmt.Sprintf("https://127.0.0.1:%d", c.apiPort)
}

// makeCertificates writes all of them, once in a cluster's life.
func (c *cluster) makeCertificates() error {
	if _, err := os.Stat(c.pki("done")); err == nil {
		return nil
	}
	os.RemoveAll(c.file("pki"))
	if err := os.MkdirAll(c.file("pki"), 0o700); err != nil {
		return err
	}
	ca, err := newAuthority("trainyard-" + c.Name)
	if err != nil {
		return err
	}
	etcdCA, err := newAuthority("trainyard-etcd-" + c.Name)
	if err != nil {
		return err
	}
	proxyCA, err := newAuthority("trainyard-proxy-" + c.Name)
	if err != nil {
		return err
	}
	sa, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	saPublic, err := x509.MarshalPKIXPublicKey(sa.Public())
	if err != nil {
		return err
	}
	files := map[string][]byte{
		"ca.crt": pemCert(ca.der), "ca.key": pemKey(ca.key), "etcd-ca.crt": pemCert(etcdCA.der),
		"proxy-ca.crt": pemCert(proxyCA.der),
		"sa.key":       pemKey(sa), "sa.pub": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: saPublic}),
	}
	add := func(a *authority, id identity) error {
		cert, key, err := a.issue(id)
		files[id.name+".crt"], files[id.name+".key"] = cert, key
		return err
	}
	if err := add(etcdCA, identity{name: "etcd", cn: "etcd", names: []string{"localhost"}, ips: []string{"127.0.0.1"}}); err != nil {
		return err
	}
	if err := add(proxyCA, identity{name: "proxy", cn: "front-proxy-client"}); err != nil {
		return err
	}
	for _, id := range c.identities() {
		if err := add(ca, id); err != nil {
			return err
		}
	}
	for name, data := range files {
		if err := writeFile(c.pki(name), data, 0o600); err != nil {
			return err
		}
	}
	for _, user := range append(c.kubeconfigUsers(), "admin") {
		path := c.pki(user + ".kubeconfig")
		if user == "admin" {
			path = c.kubeconfig()
		}
		text := renderKubeconfig(c.Name, c.apiURL(), files["ca.crt"], files[user+".crt"], files[user+".key"])
		if err := writeFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return writeFile(c.pki("done"), nil, 0o600)
}

// identities are the certificates of Kubernetes' authority.
func (c *cluster) identities() []identity {
	server := identity{name: "apiserver", cn: "kube-apiserver", ips: []string{"127.0.0.1", c.serviceIP},
		names: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}}
	all := []identity{{name: "admin", cn: "trainyard-admin", orgs: []string{"system:masters"}}}
	if c.Mode != modeFull {
		return append(all, server)
	}
	server.ips = append(server.ips, c.bridgeIP)
	all = append(all, server,
		identity{name: "apiserver-kubelet", cn: "kube-apiserver-kubelet-client", orgs: []string{"system:masters"}},
		identity{name: "kube-controller-manager", cn: "system:kube-controller-manager", ips: []string{c.bridgeIP}},
		identity{name: "kube-scheduler", cn: "system:kube-scheduler", ips: []string{c.bridgeIP}},
		identity{name: "kube-proxy", cn: "system:kube-proxy"},
		identity{name: "coredns", cn: "system:coredns"})
	for _, n := range c.nodes() {
		all = append(all, identity{name: n.name, cn: "system:node:" + n.name, orgs: []string{"system:nodes"}, names: []string{n.name}, ips: []string{n.ip}})
	}
	return all
}

func (c *cluster) kubeconfigUsers() []string {
	if c.Mode != modeFull {
		return nil
	}
	users := []string{"kube-controller-manager", "kube-scheduler", "kube-proxy", "coredns"}
	for _, n := range c.nodes() {
		users = append(users, n.name)
	}
	return users
}

func renderKubeconfig(name, server string, ca, cert, key []byte) string {
	b := base64.StdEncoding.EncodeToString
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: %[1]s
  cluster:
    server: %[2]s
    certificate-authority-data: %[3]s
users:
- name: %[1]s
  user:
    client-certificate-data: %[4]s
    client-key-data: %[5]s
contexts:
- name: %[1]s
  context:
    cluster: %[1]s
    user: %[1]s
current-context: %[1]s
`, "trainyard-"+name, server, b(ca), b(cert), b(key))
}

// clientFiles are the three files of a TLS client.
func (c *cluster) clientFiles(ca, name string) (string, string, string) {
	return c.pki(ca + ".crt"), c.pki(name + ".crt"), filepath.Join(c.dir, "pki", name+".key")
}
