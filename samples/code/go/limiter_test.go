package limiter

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

type watch struct{ at time.Time }

func (w *watch) now() time.Time          { return w.at }
func (w *watch) advance(d time.Duration) { w.at = w.at.Add(d) }

func start(t *testing.T, rate float64, size int) (*Limiter, *watch) {
	t.Helper()
	w := &watch{at: time.Date(2024, 3, 1, 8, 0, 0, 0, time.UTC)}
	l, err := New(rate, size, w.now)
	if err != nil {
		t.Fatal(err)
	}
	return l, w
}

func TestBurstPassesAndThenTheRate(t *testing.T) {
	l, w := start(t, 2, 3)
	for n := range 3 {
		if ok, _ := l.Allow("a"); !ok {
			t.Fatalf("request %d of the burst was refused", n)
		}
	}
	ok, wait := l.Allow("a")
	if ok || wait != 500*time.Millisecond {
		t.Fatalf("got %v, %v; want a refusal for half a second", ok, wait)
	}
	w.advance(wait)
	if ok, _ := l.Allow("a"); !ok {
		t.Fatal("refused after the wait that was asked for")
	}
}

func TestClientsDoNotShareABucket(t *testing.T) {
	l, _ := start(t, 1, 1)
	for _, client := range []string{"a", "b", "c"} {
		if ok, _ := l.Allow(client); !ok {
			t.Errorf("%s was refused for what others did", client)
		}
	}
}

func TestIdleClientsAreForgotten(t *testing.T) {
	l, w := start(t, 1, 10)
	l.Allow("idle")
	w.advance(11 * time.Second)
	l.Allow("busy")
	if l.Len() != 1 {
		t.Errorf("%d clients are remembered, want 1", l.Len())
	}
}

func TestMiddlewareSaysWhenToComeBack(t *testing.T) {
	l, _ := start(t, 0.1, 1)
	handler := l.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }))
	for _, want := range []int{204, 429} {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, httptest.NewRequest("GET", "/search?q=tides", nil))
		if answer.Code != want {
			t.Fatalf("got %d, want %d", answer.Code, want)
		}
		if want == 429 && answer.Header().Get("Retry-After") != "10" {
			t.Errorf("Retry-After is %q", answer.Header().Get("Retry-After"))
		}
	}
}
