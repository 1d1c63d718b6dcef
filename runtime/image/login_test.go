package image

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	dockerconfig "github.com/docker/cli/cli/config"
	"github.com/google/go-containerregistry/pkg/authn"
)

// htpasswd has the user "me" with the password "secret", as bcrypt.
const htpasswd = "me:$2b$04$Rn7.E4sLc0N87W1.OynFcutGIj6j.rlBDdt3ASJbO/0Pco3vyDtUW\n"

// dockerConfig makes a folder for Docker's configuration, which is used while the test lasts.
func dockerConfig(t *testing.T) string {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	before := dockerconfig.Dir()
	dockerconfig.SetDir(dir) // it looks at the environment once
	t.Cleanup(func() { dockerconfig.SetDir(before) })
	t.Setenv("HOME", dir) // podman's is looked at as well
	t.Setenv("XDG_RUNTIME_DIR", dir)
	t.Setenv("REGISTRY_AUTH_FILE", "")
	return dir
}

// TestLogin: credentials that the registry takes are kept as Docker keeps them, used for push and pull, and forgotten.
func TestLogin(t *testing.T) {
	dir := dockerConfig(t)
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, []byte(htpasswd), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := startRegistry(t, fmt.Sprintf("auth: {htpasswd: {realm: r, path: %s}}", file))
	name := addr + "/img:latest"
	s, ctx := openStore(t), context.Background()
	id := load(t, s, dockerArchive(t, "cmd", []string{name}, layerTar(t, entry{name: "f", body: "x"})))[0].ID

	if _, err := s.Push(ctx, name, PushOptions{}); err == nil || !strings.Contains(err.Error(), "push access denied") {
		t.Errorf("push without credentials: %v", err)
	}
	if _, err := s.Pull(ctx, name, PullOptions{}); err == nil || !strings.Contains(err.Error(), "lamina login") {
		t.Errorf("pull without credentials: %v", err)
	}
	if _, err := Login(ctx, LoginOptions{Registry: addr, Username: "me", Password: "wrong"}); err == nil || !strings.Contains(err.Error(), "login to "+addr) {
		t.Errorf("login with a wrong password: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "config.json")); !os.IsNotExist(err) {
		t.Error("a wrong password is kept")
	}

	plain, err := Login(ctx, LoginOptions{Registry: addr, Username: "me", Password: "secret"})
	if err != nil || plain != filepath.Join(dir, "config.json") {
		t.Fatalf("login: kept in %q, %v", plain, err)
	}
	var kept struct {
		Auths map[string]struct{ Auth string }
	}
	text, err := os.ReadFile(plain)
	if err != nil || json.Unmarshal(text, &kept) != nil {
		t.Fatalf("%s, %v", text, err)
	}
	if got, _ := base64.StdEncoding.DecodeString(kept.Auths[addr].Auth); string(got) != "me:secret" {
		t.Errorf("kept %s", text)
	}
	if fi, err := os.Stat(plain); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: others may read it", fi.Mode(), err)
	}
	if user, password, err := Credentials(addr, ""); user != "me" || password != "secret" || err != nil {
		t.Errorf("credentials %s %s %v", user, password, err)
	}
	push(t, s, name, PushOptions{})
	if p := pull(t, openStore(t), name, PullOptions{}); p.ID != id {
		t.Errorf("pulled %s", p.ID)
	}

	if found, err := Logout(addr, ""); !found || err != nil {
		t.Errorf("logout: %v, %v", found, err)
	}
	if found, err := Logout(addr, ""); found || err != nil {
		t.Errorf("logout again: %v, %v", found, err)
	}
	if _, err := s.Pull(ctx, name, PullOptions{}); err == nil {
		t.Error("pulled after logout")
	}
}

// TestCredentialHelper: a program of Docker's protocol keeps the credentials, and they are in no file of ours.
func TestCredentialHelper(t *testing.T) {
	dir := dockerConfig(t)
	f := newFake(t)
	addr := strings.TrimPrefix(f.URL, "http://")
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	}
	bin := t.TempDir()
	program := "#!/bin/sh\ncd " + dir + "\ncase $1 in\nstore) cat > helper.json;;\nget) cat helper.json 2>/dev/null || { echo credentials not found in native keychain; exit 1; };;\nerase) rm -f helper.json;;\nlist) echo '{}';;\nesac\n"
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-mine"), []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"credHelpers":{"`+addr+`":"mine"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	plain, err := Login(context.Background(), LoginOptions{Registry: addr, Username: "me", Password: "secret"})
	if err != nil || plain != "" {
		t.Fatalf("login: kept in %q, %v", plain, err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "config.json")); err != nil || strings.Contains(string(text), "secret") || strings.Contains(string(text), base64.StdEncoding.EncodeToString([]byte("me:secret"))) {
		t.Errorf("config.json %s, %v", text, err)
	}
	_, d := f.image(t, imageConfig(t, "cmd"))
	f.tag(d)
	pull(t, openStore(t), f.name(), PullOptions{})
	if found, err := Logout(addr, ""); !found || err != nil {
		t.Errorf("logout: %v, %v", found, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "helper.json")); !os.IsNotExist(err) {
		t.Error("the helper has them still")
	}
}

// TestToken: a registry that sends to a token server, as Docker Hub does; the password goes there only.
func TestToken(t *testing.T) {
	dockerConfig(t)
	f, tokens := newFake(t), newFake(t)
	tokens.answer = func(w http.ResponseWriter, r *http.Request) bool {
		user, password, _ := r.BasicAuth()
		if user != "me" || password != "secret" || r.URL.Query().Get("service") != "registry" {
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		fmt.Fprintf(w, `{"token": "token for %s"}`, r.URL.Query().Get("scope"))
		return true
	}
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if _, _, basic := r.BasicAuth(); basic {
			t.Error("the registry was given the password")
		}
		if a := r.Header.Get("Authorization"); !strings.HasPrefix(a, "Bearer token for") || r.URL.Path != "/v2/" && !strings.Contains(a, "repository:img:pull") {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="registry"`, strings.Replace(tokens.URL, "127.0.0.1", "localhost", 1)))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	}
	layer := layerTar(t, entry{name: "f", body: "x"})
	_, d := f.image(t, imageConfig(t, "cmd", layer), layer)
	f.tag(d)
	addr := strings.TrimPrefix(f.URL, "http://")
	ctx := context.Background()
	if _, err := Login(ctx, LoginOptions{Registry: addr, Username: "me", Password: "wrong"}); err == nil {
		t.Error("logged in with a wrong password")
	}
	if _, err := Login(ctx, LoginOptions{Registry: addr, Username: "me", Password: "secret"}); err != nil {
		t.Fatal(err)
	}
	pull(t, openStore(t), f.name(), PullOptions{})
	if _, err := openStore(t).Pull(ctx, f.name(), PullOptions{RegistryOptions: RegistryOptions{Keychain: authn.NewMultiKeychain()}}); err == nil {
		t.Error("pulled without credentials")
	}
}

func TestRegistryKey(t *testing.T) {
	for in, want := range map[string]string{
		"": DockerHub, "docker.io": DockerHub, "index.docker.io": DockerHub, DockerHub: DockerHub,
		"example.com": "example.com", "example.com:5000": "example.com:5000", "https://example.com/v1/": "example.com",
	} {
		if got := registryKey(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	for _, o := range []LoginOptions{{Username: "me"}, {Password: "secret"}, {}} {
		if _, err := Login(context.Background(), o); err == nil {
			t.Errorf("%+v: logged in", o)
		}
	}
}
