// The processes of the control plane: etcd, the API server, controller manager, scheduler and CoreDNS, with their
// flags and health checks. They run in the host's namespaces. When they are started is up.go's business.
package main

import (
	"fmt"
	"net"
	"net/http"
	"time"
)

// controlPlane lists the components in the order in which they are started.
func (c *cluster) controlPlane() ([]*component, error) {
	etcd, err := c.etcd()
	if err != nil {
		return nil, err
	}
	api, err := c.apiServer()
	if err != nil || c.Mode != modeFull {
		return []*component{etcd, api}, err
	}
	client, err := c.tlsClient("ca", "admin")
	if err != nil {
		return nil, err
	}
	return []*component{etcd, api, c.controllerManager(client), c.scheduler(client), c.coreDNS()}, nil
}

func (c *cluster) etcd() (*component, error) {
	client, err := c.tlsClient("etcd-ca", "etcd")
	if err != nil {
		return nil, err
	}
	url := fmt.Sprintf("https://127.0.0.1:%d", c.etcdPort)
	peer := fmt.Sprintf("http://127.0.0.1:%d", c.etcdPeerPort)
	ca, crt, key := c.clientFiles("etcd-ca", "etcd")
	return &component{
		name: "etcd", path: c.mustTool("etcd"), address: url, healthy: httpHealthy(client, url+"/health"),
		args: []string{
			"--name=default", "--data-dir=" + c.file("etcd"), "--listen-client-urls=" + url, "--advertise-client-urls=" + url,
			"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=default=" + peer,
			// A single member elects itself; by default it waits a second first.
			"--heartbeat-interval=20", "--election-timeout=100",
			"--client-cert-auth", "--trusted-ca-file=" + ca, "--cert-file=" + crt, "--key-file=" + key,
			// Test data: a crash of the machine may lose it, a killed etcd does not.
			"--unsafe-no-fsync", "--snapshot-count=5000", "--auto-compaction-mode=periodic", "--auto-compaction-retention=5m",
			"--quota-backend-bytes=4294967296", "--logger=zap", "--log-level=warn",
		},
	}, nil
}

func (c *cluster) apiServer() (*component, error) {
	client, err := c.api()
	if err != nil {
		return nil, err
	}
	ca, crt, key := c.clientFiles("etcd-ca", "etcd")
	ip, port := "127.0.0.1", fmt.Sprint(c.apiPort)
	args := []string{
		"--etcd-servers=" + fmt.Sprintf("https://127.0.0.1:%d", c.etcdPort), "--etcd-cafile=" + ca, "--etcd-certfile=" + crt, "--etcd-keyfile=" + key,
		"--client-ca-file=" + c.pki("ca.crt"), "--tls-cert-file=" + c.pki("apiserver.crt"), "--tls-private-key-file=" + c.pki("apiserver.key"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + c.pki("sa.pub"), "--service-account-signing-key-file=" + c.pki("sa.key"),
		"--service-cluster-ip-range=" + c.serviceCIDR, "--allow-privileged=true",
		"--audit-policy-file=" + c.file("config", "audit-policy.yaml"), "--audit-log-path=" + c.auditLog(),
		"--audit-log-maxsize=1000", "--audit-log-maxbackup=1", "--audit-log-mode=blocking",
	}
	if c.Mode == modeFull {
		ip, port = c.bridgeIP, "6443"
		args = append(args,
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
			"--kubelet-preferred-address-types=InternalIP", "--kubelet-certificate-authority="+c.pki("ca.crt"),
			"--kubelet-client-certificate="+c.pki("apiserver-kubelet.crt"), "--kubelet-client-key="+c.pki("apiserver-kubelet.key"),
			"--requestheader-client-ca-file="+c.pki("proxy-ca.crt"), "--requestheader-allowed-names=front-proxy-client",
			"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-",
			"--proxy-client-cert-file="+c.pki("proxy.crt"), "--proxy-client-key-file="+c.pki("proxy.key"),
			"--default-not-ready-toleration-seconds=15", "--default-unreachable-toleration-seconds=15")
	} else {
		// Nobody makes service accounts here, and pods are to be created all the same.
		args = append(args, "--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none")
	}
	args = append(args, "--bind-address="+ip, "--advertise-address="+ip, "--secure-port="+port)
	return &component{
		name: "kube-apiserver", path: c.mustTool("kube-apiserver"), args: args, address: c.apiURL(), timeout: 120 * time.Second,
		healthy: func() error {
			if err := httpHealthy(client.Client, client.base+"/readyz")(); err != nil {
				return err
			}
			return client.get("/api/v1/namespaces/default", nil)
		},
	}, nil
}

func (c *cluster) controllerManager(client *http.Client) *component {
	config := c.pki("kube-controller-manager.kubeconfig")
	url := "https://" + c.bridgeIP + ":10257"
	return &component{
		name: "kube-controller-manager", path: c.mustTool("kube-controller-manager"), address: url,
		healthy: httpHealthy(client, url+"/healthz"),
		args: []string{
			"--kubeconfig=" + config, "--authentication-kubeconfig=" + config, "--authorization-kubeconfig=" + config,
			"--bind-address=" + c.bridgeIP, "--secure-port=10257", "--tls-cert-file=" + c.pki("kube-controller-manager.crt"),
			"--tls-private-key-file=" + c.pki("kube-controller-manager.key"), "--client-ca-file=" + c.pki("ca.crt"),
			"--leader-elect=false", "--use-service-account-credentials=true", "--service-account-private-key-file=" + c.pki("sa.key"),
			"--root-ca-file=" + c.pki("ca.crt"), "--cluster-signing-cert-file=" + c.pki("ca.crt"), "--cluster-signing-key-file=" + c.pki("ca.key"),
			"--allocate-node-cidrs=false", "--cluster-name=" + c.Name,
			// A kubelet that ended makes its node NotReady after this; kubelets renew their leases every 5 s.
			"--node-monitor-grace-period=18s", "--node-monitor-period=2s",
		},
	}
}

func (c *cluster) scheduler(client *http.Client) *component {
	config := c.pki("kube-scheduler.kubeconfig")
	url := "https://" + c.bridgeIP + ":10259"
	return &component{
		name: "kube-scheduler", path: c.mustTool("kube-scheduler"), address: url, healthy: httpHealthy(client, url+"/healthz"),
		args: []string{
			"--kubeconfig=" + config, "--authentication-kubeconfig=" + config, "--authorization-kubeconfig=" + config,
			"--bind-address=" + c.bridgeIP, "--secure-port=10259", "--tls-cert-file=" + c.pki("kube-scheduler.crt"),
			"--tls-private-key-file=" + c.pki("kube-scheduler.key"), "--client-ca-file=" + c.pki("ca.crt"), "--leader-elect=false",
		},
	}
}

func (c *cluster) coreDNS() *component {
	return &component{
		name: "coredns", path: c.mustTool("coredns"), args: []string{"-conf", c.file("config", "Corefile")},
		address: net.JoinHostPort(c.bridgeIP, "53"),
		healthy: httpHealthy(&http.Client{Timeout: time.Second}, "http://"+c.bridgeIP+":8181/ready"),
	}
}
