package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// devLB is the balancer of the plan: an agent of its own without a mount, which
// joins the cluster and learns of the nodes from it.
type devLB struct {
	devNode
	Listen    string `json:"listen"`
	ListenTLS string `json:"listen_tls"`
}

// devLBID is its name in the cluster and its directory's.
const devLBID = "lb"

// fitLB adds the balancer to the plan.
func (p *devPlan) fitLB() error {
	if p.LB == nil {
		l := &devLB{devNode: devNode{ID: devLBID}}
		host := "127.0.0." + strconv.Itoa(devNodesMax+1)
		if err := fillAddrs(host, map[string]bool{}, &l.Bind, &l.HTTP, &l.Listen, &l.ListenTLS); err != nil {
			return err
		}
		p.LB = l
	}
	return p.fitWeb()
}

// fitWeb gives each node an address for its web server, if there is a balancer.
func (p *devPlan) fitWeb() error {
	for i := range p.Nodes {
		n := &p.Nodes[i]
		if p.LB == nil || n.Web != "" {
			continue
		}
		host, _, err := net.SplitHostPort(n.Bind)
		if err != nil {
			return err
		}
		if err := fillAddrs(host, map[string]bool{n.Bind: true, n.HTTP: true}, &n.Web); err != nil {
			return err
		}
	}
	return nil
}

// lbConfig is the configuration file of the balancer's agent.
func (p devPlan) lbConfig(dir string) ([]byte, error) {
	var join []string
	for _, n := range p.Nodes {
		if n.Founder {
			join = append(join, n.Bind)
		}
	}
	l := p.LB
	cert, key := lbCert(dir, *l)
	conf := map[string]map[string]any{
		"node":    {"id": l.ID, "data_dir": nodeData(dir, l.devNode), "socket": nodeSocket(dir, l.devNode)},
		"cluster": {"name": p.Name, "bind": l.Bind, "profile": profileOneMachine, "join": join},
		"cache":   {"reserve_bytes": int64(devReserveBytes)},
		"object":  {"url": p.objectURL(dir)},
		"http":    {"listen": l.HTTP, "pprof": true},
		"lb": {
			"listen": []string{l.Listen}, "listen_tls": []string{l.ListenTLS}, "https": "off",
			"certificates": []map[string]string{{"cert": cert, "key": key}},
			"access_log":   filepath.Join(nodeDir(dir, l.devNode), "access.log"),
		},
	}
	p.applySet(conf, true)
	return json.MarshalIndent(conf, "", "  ")
}

func lbCert(dir string, l devLB) (cert, key string) {
	return filepath.Join(nodeDir(dir, l.devNode), "cert.pem"), filepath.Join(nodeDir(dir, l.devNode), "key.pem")
}

// makeCert writes a certificate that nobody but a test would trust, unless one
// is there that is good for another day.
func makeCert(cert, key string) error {
	if b, err := os.ReadFile(cert); err == nil {
		if block, _ := pem.Decode(b); block != nil {
			if c, err := x509.ParseCertificate(block.Bytes); err == nil && time.Until(c.NotAfter) > 24*time.Hour {
				return nil
			}
		}
	}
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "wpfs dev"}, DNSNames: []string{"localhost", "*.test", "wp.test"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(127, 0, 0, devNodesMax+1)},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &priv.PublicKey, priv)
	if err != nil {
		return err
	}
	kder, err := x509.MarshalECPrivateKey(priv)
	if err != nil {
		return err
	}
	return errors.Join(
		os.MkdirAll(filepath.Dir(cert), 0o755),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: kder}), 0o600),
		os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644),
	)
}
