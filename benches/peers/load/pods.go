package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const jsonT, patchT = "application/json", "application/strategic-merge-patch+json"
const node = "load-0"

// pod is what an execution service's worker makes; on the wire, with managedFields and a final status, about 7 KB.
func pod(id string) []byte {
	return fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"executor-%[1]s","labels":{"app":"integr8s","component":"executor","execution-id":"%[1]s","language":"python","user-id":"user-7","bench-run":"%[2]s"},"annotations":{"integr8s.io/execution-id":"%[1]s","integr8s.io/correlation-id":"c-%[1]s"}},
"spec":{"nodeName":%[3]q,"restartPolicy":"Never","automountServiceAccountToken":false,"enableServiceLinks":false,"terminationGracePeriodSeconds":5,"activeDeadlineSeconds":300,
"securityContext":{"runAsNonRoot":true,"runAsUser":1000,"runAsGroup":1000,"fsGroup":1000,"seccompProfile":{"type":"RuntimeDefault"}},
"containers":[{"name":"executor","image":"registry.example/executor-python:3.12","command":["/bin/sh","/entry/entrypoint.sh","python","/scripts/script.py"],"env":[{"name":"EXECUTION_ID","value":"%[1]s"},{"name":"OUTPUT_PATH","value":"/output"},{"name":"PYTHONUNBUFFERED","value":"1"},{"name":"HOME","value":"/tmp"}],
"resources":{"requests":{"cpu":"100m","memory":"128Mi"},"limits":{"cpu":"1","memory":"512Mi","ephemeral-storage":"256Mi"}},
"securityContext":{"allowPrivilegeEscalation":false,"readOnlyRootFilesystem":true,"capabilities":{"drop":["ALL"]}},
"volumeMounts":[{"name":"script","mountPath":"/scripts","readOnly":true},{"name":"entry","mountPath":"/entry","readOnly":true},{"name":"tmp","mountPath":"/tmp"},{"name":"output","mountPath":"/output"}]}],
"volumes":[{"name":"script","configMap":{"name":"script-%[1]s"}},{"name":"entry","configMap":{"name":"entrypoint"}},{"name":"tmp","emptyDir":{"sizeLimit":"64Mi"}},{"name":"output","emptyDir":{"sizeLimit":"64Mi"}}]}}`, id, runID, node)
}

// status is what a kubelet writes. code < 0: running.
func status(id string, code int) []byte {
	now := time.Now().UTC().Format(time.RFC3339)
	cond := func(t string, ok bool, why string) string {
		return fmt.Sprintf(`{"type":%q,"status":"%s","lastTransitionTime":%q%s}`, t, map[bool]string{true: "True", false: "False"}[ok], now, why)
	}
	phase, why, state := "Running", "", fmt.Sprintf(`{"running":{"startedAt":%q},"terminated":null}`, now)
	if code >= 0 {
		phase = map[bool]string{true: "Succeeded", false: "Failed"}[code == 0]
		reason := map[bool]string{true: "Completed", false: "Error"}[code == 0]
		why = fmt.Sprintf(`,"reason":"Pod%s"`, map[bool]string{true: "Completed", false: "Failed"}[code == 0])
		state = fmt.Sprintf(`{"running":null,"terminated":{"exitCode":%d,"reason":%q,"startedAt":%q,"finishedAt":%q,"containerID":"containerd://%064x"}}`, code, reason, now, now, len(id))
	}
	return fmt.Appendf(nil, `{"status":{"phase":%q,"hostIP":"127.0.0.1","podIP":"10.44.0.9","startTime":%q,"qosClass":"Burstable","conditions":[%s,%s,%s,%s,%s],"containerStatuses":[{"name":"executor","image":"registry.example/executor-python:3.12","imageID":"sha256:%064x","containerID":"containerd://%064x","ready":%t,"started":%t,"restartCount":0,"lastState":{},"state":%s}]}}`,
		phase, now, cond("PodReadyToStartContainers", code < 0, ""), cond("Initialized", true, why), cond("Ready", code < 0, why), cond("ContainersReady", code < 0, why), cond("PodScheduled", true, ""), 7, len(id), code < 0, code < 0, state)
}

// prepare makes namespace, service account, the node that answers for logs, and n Pending pods.
func prepare(ctx context.Context, n int) time.Duration {
	api.Do(ctx, "POST", "/api/v1/namespaces", jsonT, fmt.Appendf(nil, `{"metadata":{"name":%q}}`, *ns))
	api.Do(ctx, "POST", "/api/v1/namespaces/"+*ns+"/serviceaccounts", jsonT, []byte(`{"metadata":{"name":"default"}}`))
	api.Do(ctx, "POST", "/api/v1/nodes", jsonT, fmt.Appendf(nil, `{"metadata":{"name":%q}}`, node))
	check(api.Do(ctx, "PATCH", "/api/v1/nodes/"+node+"/status", patchT, fmt.Appendf(nil, `{"status":{"addresses":[{"type":"InternalIP","address":"127.0.0.1"}],"daemonEndpoints":{"kubeletEndpoint":{"Port":%d}},"conditions":[{"type":"Ready","status":"True"}]}}`, serveLogs())))
	t := time.Now()
	each(n, *par, func(i int) { check(api.Do(ctx, "POST", podsPath, jsonT, pod(ids[i]))) })
	return time.Since(t)
}

// clean deletes this run's pods and waits until they are gone.
func clean(ctx context.Context) {
	if !*keep {
		each(len(ids), *par, func(i int) {
			api.Do(ctx, "DELETE", podsPath+"/executor-"+ids[i], jsonT, []byte(`{"gracePeriodSeconds":0}`))
		})
	}
}

func each(n, workers int, fn func(i int)) {
	next := make(chan int, n)
	for i := range n {
		next <- i
	}
	close(next)
	var wg sync.WaitGroup
	for range min(n, workers) {
		wg.Go(func() {
			for i := range next {
				fn(i)
			}
		})
	}
	wg.Wait()
}

// serveLogs plays the kubelet's log endpoint (the API server does not check its certificate) and returns its port.
func serveLogs() int {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	check(err)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	check(err)
	line := "2026-11-21 09:00:00 INFO the program prints a line of plain output\n"
	text := []byte(strings.Repeat(line, 1+max(*logBytes, 0)/len(line))[:max(*logBytes, 0)])
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		logReads.Add(1)
		if *logBytes < 0 || !strings.HasPrefix(r.URL.Path, "/containerLogs/") {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain")
		w.Write(text)
	}))
	return l.Addr().(*net.TCPAddr).Port
}
