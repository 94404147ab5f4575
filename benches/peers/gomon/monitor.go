package main

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"log"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// event is what goes to readers and to Kafka, in the shape of podherald's own events where both have a field.
type event struct {
	EventID     string          `json:"event_id"`
	EventType   string          `json:"event_type"`
	Version     string          `json:"event_version"`
	Timestamp   time.Time       `json:"timestamp"`
	ExecutionID string          `json:"execution_id"`
	PodName     string          `json:"pod_name"`
	Namespace   string          `json:"namespace"`
	ExitCode    *int32          `json:"exit_code,omitempty"`
	Reason      string          `json:"reason,omitempty"`
	Message     string          `json:"message,omitempty"`
	Stdout      string          `json:"stdout,omitempty"`
	Stderr      string          `json:"stderr,omitempty"`
	Usage       json.RawMessage `json:"resource_usage,omitempty"`
}

// What has been told of a pod.
const (
	toldRunning uint8 = 1 << iota
	toldEnd
)

// monitor turns what the informer sees into events.
type monitor struct {
	cs       kubernetes.Interface
	kafka    *kgo.Client // nil: no Kafka
	hub      *hub
	afterAck bool // readers are told only what Kafka has
	logBytes int64
	told     map[types.UID]uint8 // only the informer's handler goroutine touches it
	ended    chan *corev1.Pod    // pods whose log is to be read
	inFlight sync.WaitGroup
}

// observe runs in the informer's handler, for every look at a pod.
func (m *monitor) observe(p *corev1.Pod) {
	switch p.Status.Phase {
	case corev1.PodRunning:
		if m.told[p.UID]&toldRunning == 0 {
			m.told[p.UID] |= toldRunning
			m.publish(m.newEvent(p, "execution_running"), false)
		}
	case corev1.PodSucceeded, corev1.PodFailed:
		if m.told[p.UID]&toldEnd == 0 {
			m.told[p.UID] |= toldEnd
			m.inFlight.Add(1)
			m.ended <- p // the informer's own buffer grows while all log fetchers are busy
		}
	}
}

func (m *monitor) deleted(obj any) {
	if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = t.Obj
	}
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	m.observe(p) // the terminal phase may appear only in the DELETED object
	if m.told[p.UID]&toldEnd == 0 {
		e := m.newEvent(p, "execution_failed")
		e.Reason = "Deleted"
		m.publish(e, true)
	}
	delete(m.told, p.UID)
}

func (m *monitor) newEvent(p *corev1.Pod, kind string) *event {
	id := sha1.Sum([]byte(string(p.UID) + kind))
	return &event{EventID: fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:16]), EventType: kind, Version: "1.0",
		Timestamp: time.Now().UTC(), ExecutionID: p.Labels["execution-id"], PodName: p.Name, Namespace: p.Namespace}
}

// finish turns an ended pod into its event, with the log; runs on the fetchers.
func (m *monitor) finish(p *corev1.Pod) {
	defer m.inFlight.Done()
	e := m.newEvent(p, "execution_completed")
	e.Reason, e.Message = p.Status.Reason, p.Status.Message
	main := p.Spec.Containers[0].Name
	for _, c := range p.Status.ContainerStatuses {
		if t := c.State.Terminated; t != nil && c.Name == main {
			e.ExitCode = &t.ExitCode
			if e.Reason == "" {
				e.Reason, e.Message = t.Reason, t.Message
			}
		}
	}
	if p.Status.Phase == corev1.PodFailed || e.ExitCode != nil && *e.ExitCode != 0 {
		e.EventType = "execution_failed"
	}
	if p.Spec.NodeName != "" {
		e.Stdout, e.Stderr, e.Usage = m.output(p, main, e)
	}
	m.publish(e, true)
}

// output reads the log: standard output, standard error and usage, from the JSON report in its last line where there is one.
func (m *monitor) output(p *corev1.Pod, container string, e *event) (string, string, json.RawMessage) {
	raw, err := m.readLog(p, container)
	if err != nil {
		log.Printf("log of %s/%s: %v", p.Namespace, p.Name, err)
		return "", "", nil
	}
	text := bytes.TrimRight(raw, "\n")
	last := text[bytes.LastIndexByte(text, '\n')+1:]
	var report struct {
		ExitCode *int32          `json:"exit_code"`
		Usage    json.RawMessage `json:"resource_usage"`
		Stdout   *string         `json:"stdout"`
		Stderr   string          `json:"stderr"`
	}
	isReport := bytes.HasPrefix(last, []byte("{")) && json.Unmarshal(last, &report) == nil && report.ExitCode != nil && report.Stdout != nil
	if !isReport {
		return string(raw), "", nil
	}
	if e.ExitCode != nil && *e.ExitCode == 0 && *report.ExitCode != 0 {
		e.ExitCode, e.EventType = report.ExitCode, "execution_failed"
	}
	return *report.Stdout, report.Stderr, report.Usage
}

func (m *monitor) readLog(p *corev1.Pod, container string) (raw []byte, err error) {
	for try := range 3 {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		raw, err = m.cs.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{Container: container, LimitBytes: &m.logBytes}).DoRaw(ctx)
		cancel()
		if err == nil {
			break
		}
		time.Sleep(time.Duration(100<<try) * time.Millisecond)
	}
	return raw, err
}

// publish tells readers and Kafka; end says that it is the execution's last event.
func (m *monitor) publish(e *event, end bool) {
	body, err := json.Marshal(e)
	if err != nil {
		log.Printf("event of %s: %v", e.ExecutionID, err)
		return
	}
	if m.kafka == nil || !m.afterAck {
		m.hub.publish(e.ExecutionID, body, end)
	}
	if m.kafka == nil {
		return
	}
	record := &kgo.Record{Key: []byte(e.ExecutionID), Value: body, Headers: []kgo.RecordHeader{
		{Key: "ce_id", Value: []byte(e.EventID)}, {Key: "ce_type", Value: []byte(e.EventType)}}}
	m.kafka.Produce(context.Background(), record, func(_ *kgo.Record, err error) {
		if err != nil {
			log.Printf("kafka: %s of %s: %v", e.EventType, e.ExecutionID, err)
		} else if m.afterAck {
			m.hub.publish(e.ExecutionID, body, end)
		}
	})
}

// trim keeps of a pod what the handlers read: the cache is most of an informer's memory.
func trim(o any) (any, error) {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return o, nil
	}
	c := make([]corev1.Container, len(p.Spec.Containers))
	for i := range c {
		c[i].Name = p.Spec.Containers[i].Name
	}
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace, UID: p.UID, ResourceVersion: p.ResourceVersion,
		Labels: p.Labels, DeletionTimestamp: p.DeletionTimestamp}, Spec: corev1.PodSpec{NodeName: p.Spec.NodeName, Containers: c},
		Status: corev1.PodStatus{Phase: p.Status.Phase, Reason: p.Status.Reason, Message: p.Status.Message, ContainerStatuses: p.Status.ContainerStatuses}}, nil
}
