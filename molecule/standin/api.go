package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// api speaks to the Kubernetes API with a client certificate or a bearer token.
type api struct {
	base   string
	bearer string
	client *http.Client
}

// apiError is an answer that is not 2xx.
type apiError struct {
	status int
	text   string
}

func (e *apiError) Error() string { return e.text }

func newAPI(base, caFile, certificateFile, bearer string) (*api, error) {
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	trust := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	trust.RootCAs.AppendCertsFromPEM(ca)
	if certificateFile != "" {
		pair, err := tls.LoadX509KeyPair(certificateFile+".crt", certificateFile+".key")
		if err != nil {
			return nil, err
		}
		trust.Certificates = []tls.Certificate{pair}
	}
	return &api{base: base, bearer: bearer, client: &http.Client{Transport: &http.Transport{TLSClientConfig: trust, ForceAttemptHTTP2: true}}}, nil
}

func (a *api) request(ctx context.Context, method, path, contentType string, body any) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, a.base+path, content)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", contentType)
	if a.bearer != "" {
		request.Header.Set("Authorization", "Bearer "+a.bearer)
	}
	response, err := a.client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 300 {
		defer response.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(response.Body, 500))
		return nil, &apiError{response.StatusCode, fmt.Sprintf("%s %s: %s %s", method, path, response.Status, bytes.TrimSpace(text))}
	}
	return response, nil
}

func (a *api) do(method, path, contentType string, body, into any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	response, err := a.request(ctx, method, path, contentType, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if into != nil {
		err = json.NewDecoder(response.Body).Decode(into)
	}
	_, _ = io.Copy(io.Discard, response.Body) // an answer that is not read to its end looks like an abort to the server
	return err
}

func (a *api) get(path string, into any) error {
	return a.do(http.MethodGet, path, "application/json", nil, into)
}

func (a *api) ready() error { return a.get("/readyz", nil) }

// follow calls changed at once, after every event on the collection, and every few minutes; it ends with ctx.
// Watching costs nothing while nothing happens, which polling on a busy machine does.
func (a *api) follow(ctx context.Context, path string, changed func() error, report func(error)) {
	for ctx.Err() == nil {
		if err := a.followOnce(ctx, path, changed); err != nil && ctx.Err() == nil {
			report(err)
			pause(ctx, 3*time.Second)
		}
	}
}

func (a *api) followOnce(ctx context.Context, path string, changed func() error) error {
	if err := changed(); err != nil {
		return err
	}
	response, err := a.request(ctx, http.MethodGet, path+"?watch=true&timeoutSeconds=300", "application/json", nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	events := make(chan struct{}, 1)
	go func() {
		defer close(events)
		for decoder := json.NewDecoder(response.Body); ; {
			var ignored json.RawMessage
			if decoder.Decode(&ignored) != nil {
				return
			}
			select {
			case events <- struct{}{}:
			default: // one pending wake-up is enough: changed() reads the whole state
			}
		}
	}()
	for range events {
		if err := changed(); err != nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context, duration time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(duration):
	}
}
