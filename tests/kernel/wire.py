# A network namespace of our own, with one network card whose other end is this script. The last
# byte of the address says what the host there does.
import ctypes, errno, fcntl, os, select, signal, socket, struct, subprocess, threading, time

assert ctypes.CDLL(None).unshare(0x40000000) == 0
tun = os.open('/dev/net/tun', os.O_RDWR)
# TUNSETIFF: IFF_TUN, IFF_NO_PI
fcntl.ioctl(tun, 0x400454ca, struct.pack('16sH', b'wire', 0x1001))
for command in (
    'link set lo up',
    'address add 10.9.0.1/24 dev wire',
    'link set wire up',
    'route add unreachable 10.8.0.1',
    'route add prohibit 10.8.0.2',
    'route add blackhole 10.8.0.3',
):
    subprocess.run(['ip', *command.split()], check=True)

SILENT, REFUSES, NO_HOST, NO_NET, RESETS = (f'10.9.0.{host}' for host in range(2, 7))
SYN, RST, ACK = 2, 4, 16

def checksum(data):
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f'!{len(data) // 2}H', data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff

def packet(protocol, source, destination, payload):
    head = struct.pack(
        '!BBHHHBBH4s4s', 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0, source, destination
    )
    return head[:10] + struct.pack('!H', checksum(head)) + head[12:] + payload

def segment(source, destination, ports, sequence, acknowledged, flags):
    def tcp(check):
        return struct.pack('!HHIIBBHHH', *ports, sequence, acknowledged, 5 << 4, flags, 64000, check, 0)
    pseudo = source + destination + struct.pack('!BBH', 0, 6, 20)
    return packet(6, source, destination, tcp(checksum(pseudo + tcp(0))))

def answer(seen):
    if seen[0] != 0x45 or seen[9] != 6:
        return
    us, host = seen[12:16], seen[16:20]
    from_port, to_port, sequence = struct.unpack('!HHI', seen[20:28])
    flags = seen[33]
    def reply(flags, sequence, acknowledged):
        os.write(tun, segment(host, us, (to_port, from_port), sequence, acknowledged, flags))
    def unreachable(code):
        body = struct.pack('!I', 0) + seen[:28]
        check = checksum(struct.pack('!BBH', 3, code, 0) + body)
        os.write(tun, packet(1, host, us, struct.pack('!BBH', 3, code, check) + body))
    name = socket.inet_ntoa(host)
    if name == REFUSES:
        reply(RST | ACK, 0, sequence + 1 & 0xffffffff)
    elif name == NO_HOST:
        unreachable(1)
    elif name == NO_NET:
        unreachable(0)
    # Both ends begin at the same time, and then the other one thinks better of it.
    elif name == RESETS and flags == SYN:
        reply(SYN, 7000, 0)
    elif name == RESETS and flags == SYN | ACK:
        reply(RST, 7001, 0)

def serve():
    while True:
        answer(os.read(tun, 2048))
