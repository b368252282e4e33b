"""Waits until general queries of VERSION, counted as IGMP's, were seen to be answered in it. Behind
reports.py."""


def asked(frame):
    """The family and the version of the general query that a frame of the bridge is."""
    packet = frame[14:]
    if frame[6:12] != mac:
        return
    if frame[12:14] == b"\x08\x00" and packet[9] == 2:
        message = packet[(packet[0] & 15) * 4 : struct.unpack("!H", packet[2:4])[0]]
        if message[0] == 0x11 and message[4:8] == bytes(4):
            yield 4, 3 if len(message) >= 12 else 2
    if frame[12:14] == b"\x86\xdd" and packet[6] == 0 and packet[48] == 130:
        message = packet[48 : 40 + struct.unpack("!H", packet[4:6])[0]]
        if message[8:24] == bytes(16):
            yield 6, 3 if len(message) >= 28 else 2


wanted = {(4, VERSION), (6, VERSION)}
questions, answers = set(), set()
s.settimeout(30)
deadline = time.monotonic() + 40
while answers != {(VERSION, GROUP4), (VERSION, GROUP6)}:
    frame = s.recv(2000)
    assert time.monotonic() < deadline, (questions, answers)
    questions.update(wanted.intersection(asked(frame)))
    for said, group in reported(frame):
        family = 6 if ":" in group else 4
        if said == VERSION and group in (GROUP4, GROUP6) and (family, said) in questions:
            answers.add((said, group))
print("all good")
