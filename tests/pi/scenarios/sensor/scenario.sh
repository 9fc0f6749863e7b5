# What a sensor on an I2C bus measures arrives at a broker on the other side of mutual TLS. One is read by the kernel's
# driver and another, at 0x77, by Tidegate's own, and both have to agree with the data sheet.

# Calibration and raw values of the worked example in Bosch's data sheet of the BMP280 (BST-BMP280-DS001, section 3.12).
for address in 76 77; do
    pi chip $address 1 88 70 6b 43 67 18 fc 7d 8e 43 d6 d0 0b 27 0b 8c 00 f9 ff 8c 3c f8 c6 70 17
    pi chip $address 1 d0 58
    pi chip $address 1 f7 65 5a c0 7e ed 00
done
modprobe bmp280-i2c
echo bmp280 0x76 >/sys/bus/i2c/devices/i2c-10/new_device

pi start
pi wait 'running 2 flows'
pi host heard 'press-7/temperature .*"payload":25\.08'
pi host heard 'press-7/pressure .*"payload":1006\.53'
pi host heard 'native/temperature .*"payload":25\.08'
pi host heard 'native/pressure .*"payload":1006\.53'

# A cable that comes loose is said, and what comes later arrives.
pi unplug 76
pi unplug 77
pi wait 'still connected.*barometer/thermometer'
pi wait '0x77.*native/thermometer'
pi chip 76 1 f7 65 5a c0 83 00 00
pi chip 77 1 f7 65 5a c0 83 00 00
pi host heard 'press-7/temperature .*"payload":30\.3'
pi host heard 'native/temperature .*"payload":30\.3'
pi stop
