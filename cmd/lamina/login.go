package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/laminafs/lamina/runtime/image"
)

type loginFlags struct {
	username, password string
	passwordStdin      bool
	insecure           bool
}

func (a *app) loginCommand() *cobra.Command {
	var f loginFlags
	cmd := command("login [OPTIONS] [SERVER]", "Authenticate to a registry", between(0, 1), "",
		func(cmd *cobra.Command, args []string) error { return a.login(cmd, args, &f) })
	cmd.Long = cmd.Short + ".\nDefaults to Docker Hub if no server is specified."
	set := cmd.Flags()
	set.StringVarP(&f.username, "username", "u", "", "Username")
	set.StringVarP(&f.password, "password", "p", "", "Password or Personal Access Token (PAT)")
	set.BoolVar(&f.passwordStdin, "password-stdin", false, "Take the Password or Personal Access Token (PAT) from stdin")
	addInsecure(set, &f.insecure)
	cmd.Annotations[annotationNoStore] = "yes" // nor an identity: the credentials are the caller's own
	return cmd
}

func (a *app) login(cmd *cobra.Command, args []string, f *loginFlags) error {
	o := image.LoginOptions{Username: f.username, Password: f.password, Insecure: f.insecure}
	if len(args) > 0 {
		o.Registry = args[0]
	}
	switch {
	case f.passwordStdin && cmd.Flags().Changed("password"):
		return errors.New("--password and --password-stdin are mutually exclusive")
	case f.passwordStdin && f.username == "":
		return errors.New("must provide --username with --password-stdin")
	case f.passwordStdin:
		text, err := io.ReadAll(a.in)
		if err != nil {
			return fmt.Errorf("read the password: %w", err)
		}
		o.Password = strings.TrimRight(string(text), "\r\n")
	case f.password != "":
		fmt.Fprintln(a.err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
	}
	if err := a.askCredentials(&o); err != nil {
		return err
	}
	plain, err := image.Login(cmd.Context(), o)
	if err != nil {
		return err
	}
	if plain != "" {
		fmt.Fprintf(a.err, "WARNING! Your credentials are stored unencrypted in '%s'.\n"+
			"Configure a credential helper to remove this warning.\n", plain)
	}
	a.println("Login Succeeded")
	return nil
}

// askCredentials asks for what is not there yet, on a terminal only.
func (a *app) askCredentials(o *image.LoginOptions) error {
	if o.Username != "" && o.Password != "" {
		return nil
	}
	fd := int(a.in.Fd())
	if !term.IsTerminal(fd) {
		return errors.New("cannot perform an interactive login from a non TTY device")
	}
	if o.Username == "" {
		fmt.Fprint(a.out, "Username: ")
		line, err := bufio.NewReader(a.in).ReadString('\n')
		if err != nil {
			return fmt.Errorf("read the username: %w", err)
		}
		o.Username = strings.TrimSpace(line)
	}
	if o.Password == "" {
		fmt.Fprint(a.out, "Password: ")
		text, err := term.ReadPassword(fd)
		a.println()
		if err != nil {
			return fmt.Errorf("read the password: %w", err)
		}
		o.Password = string(text)
	}
	return nil
}

func (a *app) logoutCommand() *cobra.Command {
	cmd := command("logout [SERVER]", "Log out from a registry", between(0, 1), "",
		func(_ *cobra.Command, args []string) error {
			server := ""
			if len(args) > 0 {
				server = args[0]
			}
			found, err := image.Logout(server, "")
			if err != nil {
				return err
			}
			if server == "" {
				server = "https://index.docker.io/v1/"
			}
			if !found {
				a.println("Not logged in to " + server)
				return nil
			}
			a.println("Removing login credentials for " + server)
			return nil
		})
	cmd.Long = cmd.Short + ".\nIf no server is specified, the default is Docker Hub."
	cmd.Annotations[annotationNoStore] = "yes"
	return cmd
}
