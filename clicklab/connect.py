from clicklab import servers
def wait_for_pair():
    servers.wait_usable("kafka", "namenode", "datanode")
def belong_together(): pass
def guard():
    import time
    while True: time.sleep(5)
