// gomon is what a competent Go team would write for this job in a week: client-go informer, bounded log readers, franz-go, SSE.
// It is a baseline to be beaten honestly: protobuf, no client-side rate limit, trimmed cache, batched flushes, idempotent acks=all.
// It has no journal: what it had not published when it died is derived again from the pods that still exist, under new numbers.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	kubeconfig := flag.String("kubeconfig", os.Getenv("KUBECONFIG"), "how to reach the cluster")
	ns := flag.String("ns", "", "namespace; empty: all")
	selector := flag.String("selector", "execution-id", "labels of the pods")
	listen := flag.String("listen", "127.0.0.1:8080", "HTTP address")
	brokers := flag.String("brokers", os.Getenv("KAFKA_BOOTSTRAP"), "Kafka brokers; empty: no Kafka")
	topic := flag.String("topic", "execution_events", "where events are published")
	fetchers := flag.Int("fetchers", 32, "logs read at once")
	afterAck := flag.Bool("after-ack", false, "tell readers only what Kafka has acknowledged")
	logBytes := flag.Int64("log-bytes", 64<<10, "of a log at most")
	flag.Parse()
	if *afterAck && *brokers == "" {
		log.Fatal("-after-ack needs -brokers: nobody else acknowledges")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()

	cs := connect(*kubeconfig)
	m := &monitor{cs: cs, hub: newHub(), afterAck: *afterAck, logBytes: *logBytes, told: map[types.UID]uint8{}, ended: make(chan *corev1.Pod, 1024)}
	if *brokers != "" {
		m.kafka = producer(ctx, strings.Split(*brokers, ","), *topic)
	}
	for range *fetchers {
		go func() {
			for p := range m.ended {
				m.finish(p)
			}
		}()
	}

	factory := informers.NewSharedInformerFactoryWithOptions(cs, 0, informers.WithNamespace(*ns),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = *selector }))
	pods := factory.Core().V1().Pods().Informer()
	check(pods.SetTransform(trim))
	_, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { m.observe(o.(*corev1.Pod)) },
		UpdateFunc: func(_, o any) { m.observe(o.(*corev1.Pod)) },
		DeleteFunc: m.deleted,
	})
	check(err)

	server := serve(*listen, m.hub, pods.HasSynced)
	factory.Start(ctx.Done())
	<-ctx.Done()
	factory.Shutdown()
	m.inFlight.Wait()
	if m.kafka != nil {
		flush, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		check(m.kafka.Flush(flush))
	}
	server.Close()
}

func connect(kubeconfig string) kubernetes.Interface {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	check(err)
	cfg.QPS, cfg.UserAgent = -1, "gomon" // API Priority and Fairness limits, not the client
	cfg.ContentType = "application/vnd.kubernetes.protobuf"
	cfg.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	cs, err := kubernetes.NewForConfig(cfg)
	check(err)
	return cs
}

// producer is idempotent, as franz-go is by default, and does not wait for batches to fill.
func producer(ctx context.Context, brokers []string, topic string) *kgo.Client {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.DefaultProduceTopic(topic),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(0), kgo.MaxBufferedRecords(100_000))
	check(err)
	if _, err := kadm.NewClient(client).CreateTopic(ctx, 10, 1, nil, topic); !errors.Is(err, kerr.TopicAlreadyExists) {
		check(err)
	}
	return client
}

func serve(address string, h *hub, synced func() bool) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if !synced() {
			http.Error(w, "pods not listed yet", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) { h.serve(w, r, "") })
	mux.HandleFunc("GET /executions/{id}/events", func(w http.ResponseWriter, r *http.Request) { h.serve(w, r, r.PathValue("id")) })
	server := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			check(err)
		}
	}()
	return server
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
