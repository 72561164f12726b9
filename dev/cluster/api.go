// A small client of the API server, for the few objects that the cluster itself needs. Not a general one.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

type apiClient struct {
	*http.Client
	base string
}

// tlsClient makes a client with one of the cluster's certificates.
func (c *cluster) tlsClient(caName, name string) (*http.Client, error) {
	ca, crt, key := c.clientFiles(caName, name)
	pair, err := tls.LoadX509KeyPair(crt, key)
	if err != nil {
		return nil, fmt.Errorf("cannot read the certificate %s: %w", crt, err)
	}
	data, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(data)
	return &http.Client{
		Timeout: 3 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool},
			DisableKeepAlives: true, // components come and go under it
		},
	}, nil
}

func (c *cluster) api() (*apiClient, error) {
	client, err := c.tlsClient("ca", "admin")
	if err != nil {
		return nil, err
	}
	return &apiClient{client, c.apiURL()}, nil
}

var errNotFound = errors.New("not found")

// do sends a request and reads a JSON answer into out. Something that exists already is no error of a POST.
func (a *apiClient) do(method, path, contentType string, body, out any) error {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequest(method, a.base+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", contentType)
	}
	r, err := a.Do(req)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	switch {
	case err != nil:
		return err
	case r.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%s %w", path, errNotFound)
	case method == http.MethodPost && r.StatusCode == http.StatusConflict:
		return nil
	case r.StatusCode >= 300:
		return fmt.Errorf("%s %s: the API server answers %s: %s", method, path, r.Status, text)
	case out != nil:
		return json.Unmarshal(text, out)
	}
	return nil
}

func (a *apiClient) get(path string, out any) error { return a.do(http.MethodGet, path, "", nil, out) }

func (a *apiClient) create(path string, object any) error {
	return a.do(http.MethodPost, path, "application/json", object, nil)
}

type object = map[string]any

// grantCoreDNS lets CoreDNS read what it answers from.
func (a *apiClient) grantCoreDNS() error {
	const rbac, name = "/apis/rbac.authorization.k8s.io/v1/", "system:coredns"
	verbs := []string{"list", "watch"}
	if err := a.create(rbac+"clusterroles", object{
		"metadata": object{"name": name},
		"rules": []object{
			{"apiGroups": []string{""}, "resources": []string{"endpoints", "services", "pods", "namespaces"}, "verbs": verbs},
			{"apiGroups": []string{"discovery.k8s.io"}, "resources": []string{"endpointslices"}, "verbs": verbs},
		},
	}); err != nil {
		return err
	}
	return a.create(rbac+"clusterrolebindings", object{
		"metadata": object{"name": name},
		"roleRef":  object{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
		"subjects": []object{{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}},
	})
}

// nodeStatus is the part of a Node that matters here.
type nodeStatus struct {
	Status struct {
		Capacity   map[string]string `json:"capacity"`
		Conditions []struct {
			Type, Status, Message string
		} `json:"conditions"`
	} `json:"status"`
}

// nodeReady says whether the node is Ready by a lease that was renewed after the given time.
func (a *apiClient) nodeReady(name string, since time.Time) error {
	var lease struct {
		Spec struct {
			RenewTime time.Time `json:"renewTime"`
		} `json:"spec"`
	}
	if err := a.get("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/"+name, &lease); err != nil {
		return err
	}
	if lease.Spec.RenewTime.Before(since) {
		return fmt.Errorf("the node's lease was renewed at %s last", lease.Spec.RenewTime.Format(time.TimeOnly))
	}
	var n nodeStatus
	if err := a.get("/api/v1/nodes/"+name, &n); err != nil {
		return err
	}
	for _, cond := range n.Status.Conditions {
		if cond.Type == "Ready" {
			if cond.Status == "True" {
				return nil
			}
			return fmt.Errorf("the node is not Ready: %s", cond.Message)
		}
	}
	return errors.New("the node has no Ready condition yet")
}

const gpuResource = "nvidia.com/gpu"

// setGPUs gives a node its fake GPUs. A kubelet that registers sets them to zero, so the caller asks again.
func (a *apiClient) setGPUs(name string, count int) error {
	var n nodeStatus
	if err := a.get("/api/v1/nodes/"+name, &n); err != nil {
		return err
	}
	value := fmt.Sprint(count)
	if n.Status.Capacity[gpuResource] == value {
		return nil
	}
	patch := []object{}
	for _, field := range []string{"capacity", "allocatable"} {
		patch = append(patch, object{"op": "add", "path": "/status/" + field + "/nvidia.com~1gpu", "value": value})
	}
	return a.do(http.MethodPatch, "/api/v1/nodes/"+name+"/status", "application/json-patch+json", patch, nil)
}
