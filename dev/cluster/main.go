// The command line of the local cluster: arguments, help and dispatch. What the commands do is in the other files.
package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

const help = `cluster: a local Kubernetes for trainyard's development and tests.

  cluster up                  start it, or repair it: etcd, API server, controller manager, scheduler, CoreDNS, and two
                              nodes with containerd, kubelet, kube-proxy and 8 fake nvidia.com/gpu each (needs root)
      --container-log-max-size SIZE     a kubelet rotates a container's log at this size (10Mi)
      --container-log-max-files N       and keeps as many files (5)
      --container-log-monitor-interval T  looking at the size this often (10s)
      --gpus N                          fake GPUs a node (8)
  cluster up --control-plane  etcd and API server only, for tests that need no pods; needs no root
  cluster down                end it and remove all that it left on the machine; always safe to run
  cluster status              a table of its processes; succeeds only when all of them are healthy
  cluster kubeconfig          print the path of the administrator's kubeconfig
  cluster paths               print where things are, as KEY=VALUE lines
  cluster load-image FILE...  load image archives (OCI or docker) into all nodes; loaded ones are skipped
  cluster tool NAME           print the path of a pinned tool, built when missing: kubectl, helm, kwok, ctr, …
  cluster kubectl ARGS...     run the pinned kubectl on this cluster
  cluster node stop NODE      kill a node's kubelet (-9); its containers go on
  cluster node start NODE     start it again
  cluster node enter NODE [COMMAND...]   run a command (or a shell) inside of a node, as if logged in there
  cluster restart COMPONENT   kill (-9) a component and start it again, e.g. kube-apiserver, node-1/containerd, or
                              node-1: the whole node, as if its power failed
  cluster logs COMPONENT      print the path of a component's log
  cluster list                list all clusters of this user on this machine

Everywhere: --name NAME chooses a cluster; else $TRAINYARD_CLUSTER; else the name comes from the checkout's path.
Built tools and images are kept in ${TRAINYARD_CACHE:-~/.cache/trainyard}. The first build takes about 20 minutes.
`

// options are what the command line says.
type options struct {
	name         string
	controlPlane bool
	change       []func(*settings)
	args         []string
}

// parseArguments reads flags wherever they stand, up to `--` or to a command that takes the rest as it is.
func parseArguments(args []string) (o options, err error) {
	for i := 0; i < len(args); i++ {
		flag, value, has := strings.Cut(args[i], "=")
		next := func() string {
			if !has {
				if i++; i >= len(args) {
					err = fmt.Errorf("%s needs a value", flag)
					return ""
				}
				value = args[i]
			}
			return value
		}
		number := func() int {
			n, e := strconv.Atoi(next())
			if (e != nil || n < 0) && err == nil {
				err = fmt.Errorf("%s needs a number, and %q is none", flag, value)
			}
			return n
		}
		rest := len(o.args) > 0 && o.args[0] == "kubectl" || len(o.args) > 2 && o.args[0] == "node" && o.args[1] == "enter"
		switch {
		case rest || !strings.HasPrefix(flag, "-"):
			o.args = append(o.args, args[i])
		case flag == "--":
			o.args = append(o.args, args[i+1:]...)
			return o, err
		case flag == "--name":
			o.name = next()
		case flag == "--control-plane":
			o.controlPlane = true
		case flag == "--container-log-max-size":
			v := next()
			o.change = append(o.change, func(s *settings) { s.LogMaxSize = v })
		case flag == "--container-log-max-files":
			v := number()
			o.change = append(o.change, func(s *settings) { s.LogMaxFiles = v })
		case flag == "--container-log-monitor-interval":
			v := next()
			o.change = append(o.change, func(s *settings) { s.LogMonitorInterval = v })
		case flag == "--gpus":
			v := number()
			o.change = append(o.change, func(s *settings) { s.GPUs = v })
		case flag == "--help" || flag == "-h":
			o.args = append([]string{"help"}, o.args...)
		default:
			return o, fmt.Errorf("there is no flag %s; `cluster help` shows what there is", flag)
		}
	}
	return o, err
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		if err != errQuiet {
			fmt.Fprintln(os.Stderr, "cluster: "+sentence(err))
		}
		os.Exit(1)
	}
}

// errQuiet ends the program with a failure that was told already.
var errQuiet = errors.New("")

func run(args []string) error {
	if len(args) > 0 && args[0] == "internal-node-init" {
		return runNodeInit(args[1:])
	}
	o, err := parseArguments(args)
	if err != nil {
		return err
	}
	if len(o.args) == 0 || o.args[0] == "help" {
		fmt.Print(help)
		return nil
	}
	c, err := openCluster(o.name)
	if err != nil {
		return err
	}
	command, rest := o.args[0], o.args[1:]
	want := func(n int, what string) error {
		if len(rest) != n {
			return fmt.Errorf("`cluster %s` takes %s; `cluster help` shows how", command, what)
		}
		return nil
	}
	switch command {
	case "up":
		mode := modeFull
		if o.controlPlane {
			mode = modeControlPlane
		}
		return c.up(mode, func(s *settings) {
			for _, f := range o.change {
				f(s)
			}
		})
	case "down":
		return c.down()
	case "list":
		return c.list()
	case "tool":
		if err := want(1, "the name of one tool"); err != nil {
			return err
		}
		return c.printTool(rest[0])
	}
	commands := map[string]func() error{
		"status": c.status, "paths": c.paths,
		"kubeconfig": func() error { fmt.Println(c.kubeconfig()); return nil },
		"load-image": func() error { return c.loadImages(rest) },
		"node":       func() error { return c.nodeCommand(rest) },
		"kubectl":    func() error { return c.kubectl(rest) },
		"restart": func() error {
			if err := want(1, "one component"); err != nil {
				return err
			}
			return c.restart(rest[0])
		},
		"logs": func() error {
			if err := want(1, "one component"); err != nil {
				return err
			}
			return c.logs(rest[0])
		},
	}
	f, ok := commands[command]
	if !ok {
		return fmt.Errorf("there is no command %q; `cluster help` shows what there is", command)
	}
	if !c.known {
		return fmt.Errorf("the cluster %s is not up; `cluster up` starts it, and `cluster list` shows those that are", c.Name)
	}
	return f()
}
