# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_tunctl_global_optspecs
    string join \n root= json h/help V/version
end

function __fish_tunctl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_tunctl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_tunctl_using_subcommand
    set -l cmd (__fish_tunctl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c tunctl -n "__fish_tunctl_needs_command" -l root -d 'Where tund serves its tree: /scheme on Redox, the directory of `tund --mount` on Linux [default: the environment\'s TUND_ROOT, or /scheme]' -r -F
complete -c tunctl -n "__fish_tunctl_needs_command" -l json -d 'Print JSON, for programs'
complete -c tunctl -n "__fish_tunctl_needs_command" -s h -l help -d 'Print help'
complete -c tunctl -n "__fish_tunctl_needs_command" -s V -l version -d 'Print version'
complete -c tunctl -n "__fish_tunctl_needs_command" -f -a "list" -d 'List interfaces'
complete -c tunctl -n "__fish_tunctl_needs_command" -f -a "show" -d 'Show everything about an interface'
complete -c tunctl -n "__fish_tunctl_needs_command" -f -a "up" -d 'Bring an interface up'
complete -c tunctl -n "__fish_tunctl_needs_command" -f -a "down" -d 'Take an interface down'
complete -c tunctl -n "__fish_tunctl_needs_command" -f -a "addr" -d 'Show or change the addresses of an interface'
complete -c tunctl -n "__fish_tunctl_needs_command" -f -a "mtu" -d 'Show or change the largest packet of an interface, bytes'
complete -c tunctl -n "__fish_tunctl_needs_command" -f -a "route" -d 'Show or change routes'
complete -c tunctl -n "__fish_tunctl_needs_command" -f -a "queue" -d 'Show or change the send queue of an interface'
complete -c tunctl -n "__fish_tunctl_needs_command" -f -a "stats" -d 'Show the counters of an interface'
complete -c tunctl -n "__fish_tunctl_needs_command" -f -a "sockets" -d 'Show who is connected, as ss does'
complete -c tunctl -n "__fish_tunctl_needs_command" -f -a "top" -d 'Show what the network does now: rates, queues, drops, the busiest sockets'
complete -c tunctl -n "__fish_tunctl_needs_command" -f -a "capture" -d 'Write packets to a file that Wireshark and tcpdump read: those of an interface, or all that are dropped, with the reason'
complete -c tunctl -n "__fish_tunctl_needs_command" -f -a "ping" -d 'Send echo requests'
complete -c tunctl -n "__fish_tunctl_needs_command" -f -a "forwarding" -d 'Forward packets of other hosts: on, off, or show'
complete -c tunctl -n "__fish_tunctl_needs_command" -f -a "destroy" -d 'Remove a tun interface that nobody has open'
complete -c tunctl -n "__fish_tunctl_needs_command" -f -a "bridge" -d 'Pump packets between tun/UNIT and a tun device of the Linux kernel, made if need be'
complete -c tunctl -n "__fish_tunctl_needs_command" -f -a "completions" -d 'Print what a shell needs to complete command lines'
complete -c tunctl -n "__fish_tunctl_needs_command" -f -a "man" -d 'Write the manual pages into a directory'
complete -c tunctl -n "__fish_tunctl_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tunctl -n "__fish_tunctl_using_subcommand list" -l root -d 'Where tund serves its tree: /scheme on Redox, the directory of `tund --mount` on Linux [default: the environment\'s TUND_ROOT, or /scheme]' -r -F
complete -c tunctl -n "__fish_tunctl_using_subcommand list" -l json -d 'Print JSON, for programs'
complete -c tunctl -n "__fish_tunctl_using_subcommand list" -s h -l help -d 'Print help'
complete -c tunctl -n "__fish_tunctl_using_subcommand show" -l root -d 'Where tund serves its tree: /scheme on Redox, the directory of `tund --mount` on Linux [default: the environment\'s TUND_ROOT, or /scheme]' -r -F
complete -c tunctl -n "__fish_tunctl_using_subcommand show" -l json -d 'Print JSON, for programs'
complete -c tunctl -n "__fish_tunctl_using_subcommand show" -s h -l help -d 'Print help'
complete -c tunctl -n "__fish_tunctl_using_subcommand up" -l root -d 'Where tund serves its tree: /scheme on Redox, the directory of `tund --mount` on Linux [default: the environment\'s TUND_ROOT, or /scheme]' -r -F
complete -c tunctl -n "__fish_tunctl_using_subcommand up" -l json -d 'Print JSON, for programs'
complete -c tunctl -n "__fish_tunctl_using_subcommand up" -s h -l help -d 'Print help'
complete -c tunctl -n "__fish_tunctl_using_subcommand down" -l root -d 'Where tund serves its tree: /scheme on Redox, the directory of `tund --mount` on Linux [default: the environment\'s TUND_ROOT, or /scheme]' -r -F
complete -c tunctl -n "__fish_tunctl_using_subcommand down" -l json -d 'Print JSON, for programs'
complete -c tunctl -n "__fish_tunctl_using_subcommand down" -s h -l help -d 'Print help'
complete -c tunctl -n "__fish_tunctl_using_subcommand addr" -l root -d 'Where tund serves its tree: /scheme on Redox, the directory of `tund --mount` on Linux [default: the environment\'s TUND_ROOT, or /scheme]' -r -F
complete -c tunctl -n "__fish_tunctl_using_subcommand addr" -l json -d 'Print JSON, for programs'
complete -c tunctl -n "__fish_tunctl_using_subcommand addr" -s h -l help -d 'Print help'
complete -c tunctl -n "__fish_tunctl_using_subcommand mtu" -l root -d 'Where tund serves its tree: /scheme on Redox, the directory of `tund --mount` on Linux [default: the environment\'s TUND_ROOT, or /scheme]' -r -F
complete -c tunctl -n "__fish_tunctl_using_subcommand mtu" -l json -d 'Print JSON, for programs'
complete -c tunctl -n "__fish_tunctl_using_subcommand mtu" -s h -l help -d 'Print help'
complete -c tunctl -n "__fish_tunctl_using_subcommand route" -l root -d 'Where tund serves its tree: /scheme on Redox, the directory of `tund --mount` on Linux [default: the environment\'s TUND_ROOT, or /scheme]' -r -F
complete -c tunctl -n "__fish_tunctl_using_subcommand route" -l json -d 'Print JSON, for programs'
complete -c tunctl -n "__fish_tunctl_using_subcommand route" -s h -l help -d 'Print help'
complete -c tunctl -n "__fish_tunctl_using_subcommand queue" -l root -d 'Where tund serves its tree: /scheme on Redox, the directory of `tund --mount` on Linux [default: the environment\'s TUND_ROOT, or /scheme]' -r -F
complete -c tunctl -n "__fish_tunctl_using_subcommand queue" -l json -d 'Print JSON, for programs'
complete -c tunctl -n "__fish_tunctl_using_subcommand queue" -s h -l help -d 'Print help'
complete -c tunctl -n "__fish_tunctl_using_subcommand stats" -l interval -d 'Seconds between two looks, at least 0.01' -r
complete -c tunctl -n "__fish_tunctl_using_subcommand stats" -l root -d 'Where tund serves its tree: /scheme on Redox, the directory of `tund --mount` on Linux [default: the environment\'s TUND_ROOT, or /scheme]' -r -F
complete -c tunctl -n "__fish_tunctl_using_subcommand stats" -l watch -d 'Show them again and again, with rates; as JSON one object a line'
complete -c tunctl -n "__fish_tunctl_using_subcommand stats" -l explain -d 'Say what each reason for drops means, and what to do'
complete -c tunctl -n "__fish_tunctl_using_subcommand stats" -l json -d 'Print JSON, for programs'
complete -c tunctl -n "__fish_tunctl_using_subcommand stats" -s h -l help -d 'Print help'
complete -c tunctl -n "__fish_tunctl_using_subcommand sockets" -l root -d 'Where tund serves its tree: /scheme on Redox, the directory of `tund --mount` on Linux [default: the environment\'s TUND_ROOT, or /scheme]' -r -F
complete -c tunctl -n "__fish_tunctl_using_subcommand sockets" -s t -l tcp -d 'Only sockets of TCP'
complete -c tunctl -n "__fish_tunctl_using_subcommand sockets" -s u -l udp -d 'Only sockets of UDP'
complete -c tunctl -n "__fish_tunctl_using_subcommand sockets" -s w -l raw -d 'Only sockets for whole packets and for pings'
complete -c tunctl -n "__fish_tunctl_using_subcommand sockets" -s l -l listening -d 'Only sockets that strangers may reach: listeners, and those without another end'
complete -c tunctl -n "__fish_tunctl_using_subcommand sockets" -s n -l numeric -d 'Show addresses and ports as numbers, which is always done'
complete -c tunctl -n "__fish_tunctl_using_subcommand sockets" -s i -l info -d 'Show what TCP knows of its path'
complete -c tunctl -n "__fish_tunctl_using_subcommand sockets" -l json -d 'Print JSON, for programs'
complete -c tunctl -n "__fish_tunctl_using_subcommand sockets" -s h -l help -d 'Print help'
complete -c tunctl -n "__fish_tunctl_using_subcommand top" -s i -l interval -d 'Seconds between two looks, at least 0.01' -r
complete -c tunctl -n "__fish_tunctl_using_subcommand top" -l root -d 'Where tund serves its tree: /scheme on Redox, the directory of `tund --mount` on Linux [default: the environment\'s TUND_ROOT, or /scheme]' -r -F
complete -c tunctl -n "__fish_tunctl_using_subcommand top" -l once -d 'Print it once, for scripts'
complete -c tunctl -n "__fish_tunctl_using_subcommand top" -l json -d 'Print JSON, for programs'
complete -c tunctl -n "__fish_tunctl_using_subcommand top" -s h -l help -d 'Print help'
complete -c tunctl -n "__fish_tunctl_using_subcommand capture" -l packets -d 'Stop after so many packets' -r
complete -c tunctl -n "__fish_tunctl_using_subcommand capture" -l root -d 'Where tund serves its tree: /scheme on Redox, the directory of `tund --mount` on Linux [default: the environment\'s TUND_ROOT, or /scheme]' -r -F
complete -c tunctl -n "__fish_tunctl_using_subcommand capture" -l drops -d 'The packets that any interface drops, as pcapng with the reason as a comment on each'
complete -c tunctl -n "__fish_tunctl_using_subcommand capture" -l json -d 'Print JSON, for programs'
complete -c tunctl -n "__fish_tunctl_using_subcommand capture" -s h -l help -d 'Print help'
complete -c tunctl -n "__fish_tunctl_using_subcommand ping" -s c -l count -d 'How many; without it, until interrupted' -r
complete -c tunctl -n "__fish_tunctl_using_subcommand ping" -s i -l interval -d 'Seconds between two, at least 0.01' -r
complete -c tunctl -n "__fish_tunctl_using_subcommand ping" -s s -l size -d 'Bytes of data in each' -r
complete -c tunctl -n "__fish_tunctl_using_subcommand ping" -s W -l timeout -d 'Seconds to wait for the last reply' -r
complete -c tunctl -n "__fish_tunctl_using_subcommand ping" -l root -d 'Where tund serves its tree: /scheme on Redox, the directory of `tund --mount` on Linux [default: the environment\'s TUND_ROOT, or /scheme]' -r -F
complete -c tunctl -n "__fish_tunctl_using_subcommand ping" -l json -d 'Print JSON, for programs'
complete -c tunctl -n "__fish_tunctl_using_subcommand ping" -s h -l help -d 'Print help'
complete -c tunctl -n "__fish_tunctl_using_subcommand forwarding" -l root -d 'Where tund serves its tree: /scheme on Redox, the directory of `tund --mount` on Linux [default: the environment\'s TUND_ROOT, or /scheme]' -r -F
complete -c tunctl -n "__fish_tunctl_using_subcommand forwarding" -l json -d 'Print JSON, for programs'
complete -c tunctl -n "__fish_tunctl_using_subcommand forwarding" -s h -l help -d 'Print help'
complete -c tunctl -n "__fish_tunctl_using_subcommand destroy" -l root -d 'Where tund serves its tree: /scheme on Redox, the directory of `tund --mount` on Linux [default: the environment\'s TUND_ROOT, or /scheme]' -r -F
complete -c tunctl -n "__fish_tunctl_using_subcommand destroy" -l json -d 'Print JSON, for programs'
complete -c tunctl -n "__fish_tunctl_using_subcommand destroy" -s h -l help -d 'Print help'
complete -c tunctl -n "__fish_tunctl_using_subcommand bridge" -l root -d 'Where tund serves its tree: /scheme on Redox, the directory of `tund --mount` on Linux [default: the environment\'s TUND_ROOT, or /scheme]' -r -F
complete -c tunctl -n "__fish_tunctl_using_subcommand bridge" -l json -d 'Print JSON, for programs'
complete -c tunctl -n "__fish_tunctl_using_subcommand bridge" -s h -l help -d 'Print help'
complete -c tunctl -n "__fish_tunctl_using_subcommand completions" -l root -d 'Where tund serves its tree: /scheme on Redox, the directory of `tund --mount` on Linux [default: the environment\'s TUND_ROOT, or /scheme]' -r -F
complete -c tunctl -n "__fish_tunctl_using_subcommand completions" -l json -d 'Print JSON, for programs'
complete -c tunctl -n "__fish_tunctl_using_subcommand completions" -s h -l help -d 'Print help'
complete -c tunctl -n "__fish_tunctl_using_subcommand man" -l root -d 'Where tund serves its tree: /scheme on Redox, the directory of `tund --mount` on Linux [default: the environment\'s TUND_ROOT, or /scheme]' -r -F
complete -c tunctl -n "__fish_tunctl_using_subcommand man" -l json -d 'Print JSON, for programs'
complete -c tunctl -n "__fish_tunctl_using_subcommand man" -s h -l help -d 'Print help'
complete -c tunctl -n "__fish_tunctl_using_subcommand help; and not __fish_seen_subcommand_from list show up down addr mtu route queue stats sockets top capture ping forwarding destroy bridge completions man help" -f -a "list" -d 'List interfaces'
complete -c tunctl -n "__fish_tunctl_using_subcommand help; and not __fish_seen_subcommand_from list show up down addr mtu route queue stats sockets top capture ping forwarding destroy bridge completions man help" -f -a "show" -d 'Show everything about an interface'
complete -c tunctl -n "__fish_tunctl_using_subcommand help; and not __fish_seen_subcommand_from list show up down addr mtu route queue stats sockets top capture ping forwarding destroy bridge completions man help" -f -a "up" -d 'Bring an interface up'
complete -c tunctl -n "__fish_tunctl_using_subcommand help; and not __fish_seen_subcommand_from list show up down addr mtu route queue stats sockets top capture ping forwarding destroy bridge completions man help" -f -a "down" -d 'Take an interface down'
complete -c tunctl -n "__fish_tunctl_using_subcommand help; and not __fish_seen_subcommand_from list show up down addr mtu route queue stats sockets top capture ping forwarding destroy bridge completions man help" -f -a "addr" -d 'Show or change the addresses of an interface'
complete -c tunctl -n "__fish_tunctl_using_subcommand help; and not __fish_seen_subcommand_from list show up down addr mtu route queue stats sockets top capture ping forwarding destroy bridge completions man help" -f -a "mtu" -d 'Show or change the largest packet of an interface, bytes'
complete -c tunctl -n "__fish_tunctl_using_subcommand help; and not __fish_seen_subcommand_from list show up down addr mtu route queue stats sockets top capture ping forwarding destroy bridge completions man help" -f -a "route" -d 'Show or change routes'
complete -c tunctl -n "__fish_tunctl_using_subcommand help; and not __fish_seen_subcommand_from list show up down addr mtu route queue stats sockets top capture ping forwarding destroy bridge completions man help" -f -a "queue" -d 'Show or change the send queue of an interface'
complete -c tunctl -n "__fish_tunctl_using_subcommand help; and not __fish_seen_subcommand_from list show up down addr mtu route queue stats sockets top capture ping forwarding destroy bridge completions man help" -f -a "stats" -d 'Show the counters of an interface'
complete -c tunctl -n "__fish_tunctl_using_subcommand help; and not __fish_seen_subcommand_from list show up down addr mtu route queue stats sockets top capture ping forwarding destroy bridge completions man help" -f -a "sockets" -d 'Show who is connected, as ss does'
complete -c tunctl -n "__fish_tunctl_using_subcommand help; and not __fish_seen_subcommand_from list show up down addr mtu route queue stats sockets top capture ping forwarding destroy bridge completions man help" -f -a "top" -d 'Show what the network does now: rates, queues, drops, the busiest sockets'
complete -c tunctl -n "__fish_tunctl_using_subcommand help; and not __fish_seen_subcommand_from list show up down addr mtu route queue stats sockets top capture ping forwarding destroy bridge completions man help" -f -a "capture" -d 'Write packets to a file that Wireshark and tcpdump read: those of an interface, or all that are dropped, with the reason'
complete -c tunctl -n "__fish_tunctl_using_subcommand help; and not __fish_seen_subcommand_from list show up down addr mtu route queue stats sockets top capture ping forwarding destroy bridge completions man help" -f -a "ping" -d 'Send echo requests'
complete -c tunctl -n "__fish_tunctl_using_subcommand help; and not __fish_seen_subcommand_from list show up down addr mtu route queue stats sockets top capture ping forwarding destroy bridge completions man help" -f -a "forwarding" -d 'Forward packets of other hosts: on, off, or show'
complete -c tunctl -n "__fish_tunctl_using_subcommand help; and not __fish_seen_subcommand_from list show up down addr mtu route queue stats sockets top capture ping forwarding destroy bridge completions man help" -f -a "destroy" -d 'Remove a tun interface that nobody has open'
complete -c tunctl -n "__fish_tunctl_using_subcommand help; and not __fish_seen_subcommand_from list show up down addr mtu route queue stats sockets top capture ping forwarding destroy bridge completions man help" -f -a "bridge" -d 'Pump packets between tun/UNIT and a tun device of the Linux kernel, made if need be'
complete -c tunctl -n "__fish_tunctl_using_subcommand help; and not __fish_seen_subcommand_from list show up down addr mtu route queue stats sockets top capture ping forwarding destroy bridge completions man help" -f -a "completions" -d 'Print what a shell needs to complete command lines'
complete -c tunctl -n "__fish_tunctl_using_subcommand help; and not __fish_seen_subcommand_from list show up down addr mtu route queue stats sockets top capture ping forwarding destroy bridge completions man help" -f -a "man" -d 'Write the manual pages into a directory'
complete -c tunctl -n "__fish_tunctl_using_subcommand help; and not __fish_seen_subcommand_from list show up down addr mtu route queue stats sockets top capture ping forwarding destroy bridge completions man help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'

