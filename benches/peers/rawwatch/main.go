// rawwatch is the floor: a raw HTTP watch that decodes nothing and only scans name and phase.
// It prints "<unix ns> <type> <name> <phase>" a frame; with -listen it also relays phases as SSE, so that the same meter fits.
// No logs, no Kafka, no memory of events beyond what -listen replays: nobody could ship this; nobody can be faster in Go.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"
	"sync"

	"podherald/benches/peers/kube"
)

var types = map[string]string{"Running": "execution_running", "Succeeded": "execution_completed", "Failed": "execution_failed"}

func main() {
	kc := flag.String("kubeconfig", os.Getenv("KUBECONFIG"), "")
	ns := flag.String("ns", "", "namespace, default all")
	sel := flag.String("selector", "execution-id", "label selector")
	listen := flag.String("listen", "", "serve SSE on this address instead of printing")
	flag.Parse()
	api, err := kube.Open(*kc, false)
	if err != nil {
		log.Fatal(err)
	}
	out := bufio.NewWriter(os.Stdout)
	var mu sync.Mutex
	cond := sync.NewCond(&mu)
	var all [][]byte // every event so far; each reader keeps its own index
	synced, seen := false, map[string]bool{}
	if *listen != "" {
		http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			if !synced {
				w.WriteHeader(503)
			}
		})
		http.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.(http.Flusher).Flush()
			mu.Lock()
			i := len(all)
			if r.URL.Query().Has("last_event_id") {
				i = 0
			}
			for r.Context().Err() == nil {
				for i == len(all) {
					cond.Wait()
				}
				batch := all[i:]
				i = len(all)
				mu.Unlock()
				for _, b := range batch {
					w.Write(b)
				}
				w.(http.Flusher).Flush()
				mu.Lock()
			}
			mu.Unlock()
		})
		go func() { log.Fatal(http.ListenAndServe(*listen, nil)) }()
	}
	log.Fatal(api.Watch(context.Background(), *ns, *sel, func(f kube.Frame) {
		name, phase := f.Name(), f.Phase()
		if *listen == "" {
			fmt.Fprintln(out, f.At.UnixNano(), f.Type(), name, phase)
			out.Flush()
			return
		}
		mu.Lock()
		synced = synced || f.Synced()
		if t := types[phase]; t != "" && !seen[name+phase] && f.Type() != "BOOKMARK" {
			seen[name+phase] = true
			all = append(all, fmt.Appendf(nil, "data: {\"event_type\":%q,\"execution_id\":%q}\n\n", t, strings.TrimPrefix(name, "executor-")))
		}
		mu.Unlock()
		cond.Broadcast()
	}))
}
